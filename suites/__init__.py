"""Suite files, datasets, reference models, task files and performance benchmarks."""
