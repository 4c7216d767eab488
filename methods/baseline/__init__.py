"""Points of reference that every table needs."""
