"""Plots of a report: functions from plain numbers to a matplotlib figure, drawn at a width in CSS pixels."""
