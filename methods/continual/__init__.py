"""Learning one task after the other without forgetting the earlier ones."""
