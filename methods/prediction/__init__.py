"""Stacking and calibration: one prediction from those of many base models."""
