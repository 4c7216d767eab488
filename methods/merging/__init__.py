"""Merging fine-tuned models without further training."""
