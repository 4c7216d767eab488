"""Reference implementations of published methods: a folder per family, a file per method."""
