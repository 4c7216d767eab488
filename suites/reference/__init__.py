"""Recipes of the small reference models, and their weights."""
