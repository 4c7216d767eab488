"""Micro-benchmarks of the CPU kernels, one for each stored format: `make bench` (pytest-benchmark).

One product of a row of activations with a 1024 x 1024 weight, which stays in the cache: what changes here is the
kernel, not the memory. Products with weights beyond the cache are in `suites.benchmarks.kernels`.
"""

from __future__ import annotations

import pytest
import torch

from suites.benchmarks.weights import WEIGHTS, made

kernels = pytest.importorskip("harness_kernels", reason="harness_kernels is not installed: pip install ./kernels")
CASES = [(name, way) for name, (_, ways) in WEIGHTS.items() for way in ways]


@pytest.mark.parametrize(("name", "activations"), CASES)
def test_product(benchmark, name, activations):
    weight = made(name, 1024, 1024)
    x = torch.randn(1, 1024, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        benchmark(kernels.matmul, weight, x, activations=activations)
