"""The report: one self-contained HTML file of suites' tables, plots and records."""
