"""lm-eval task files for the project's data sets, which come from its own loader."""
