# Everything runs in .venv, which the first target makes. PYTHON=... chooses another interpreter (3.11 or newer).
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,\
	$(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
WORKERS ?= 2
INSTALLED := .venv/installed
KERNELS := .venv/kernels
PYTEST := OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n $(WORKERS)

.PHONY: run test test-all lint bench

run: $(INSTALLED) $(KERNELS)
	.venv/bin/harness run quickstart

test: $(INSTALLED) $(KERNELS)
	$(PYTEST)

test-all: $(INSTALLED) $(KERNELS)
	$(PYTEST) -m ''

bench: $(INSTALLED) $(KERNELS)
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest suites/benchmarks/bench_kernels.py

lint: $(INSTALLED)
	.venv/bin/ruff check .
	.venv/bin/mypy

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer was not found; name one with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet -c constraints.txt -e '.[dev,models]'
	touch $@

# Without a compiler, or where they do not build, everything runs on the torch reference; only slower.
$(KERNELS): $(INSTALLED) $(shell find kernels/src -type f) kernels/CMakeLists.txt kernels/pyproject.toml
	@if command -v $${CXX:-c++} >/dev/null; then .venv/bin/pip install --quiet --no-deps ./kernels || \
		echo "make: the kernels in kernels/ did not build; going on with the torch reference" >&2; \
	else echo "make: no C++ compiler was found (CXX=... names one); going on with the torch reference" >&2; fi
	@touch $@
