"""Pruning: some weights become zero and are not stored."""
