"""Coding: fewer bytes for the same numbers."""
