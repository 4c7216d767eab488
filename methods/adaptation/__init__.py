"""Adapting a pretrained model: adapters, sparse updates, and what they are compared with."""
