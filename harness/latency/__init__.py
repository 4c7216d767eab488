"""How fast stored formats are on this machine, each figure beside its limit: rounds, ceilings, random weights."""
