"""Metrics: functions from a subject (a model and what it is evaluated with) to scores per item."""
