"""The training loop, its schedules, and the recipes of the reference models."""
