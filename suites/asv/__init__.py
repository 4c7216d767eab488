"""Benchmarks of the harness itself, for asv: see asv.conf.json."""
