"""Building blocks that methods of several families share: one module each, of functions."""
