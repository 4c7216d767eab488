"""Quantization: each weight becomes an integer code of a few bits."""
