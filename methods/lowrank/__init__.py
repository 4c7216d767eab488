"""Factorization: a weight matrix becomes a product of two thin ones."""
