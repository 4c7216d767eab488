"""New networks from a zoo of trained ones."""
