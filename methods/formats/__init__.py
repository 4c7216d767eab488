"""Stored formats as the latency track times them: random weights, since speed does not depend on their values."""
