"""Random packed weights of a given shape by the names that the kernel benchmarks print."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from harness.latency import weights
from harness.latency.weights import GROUP
from harness.packed import PackedWeight

__all__ = ["GROUP", "WEIGHTS", "made"]
Make = Callable[[int, int], PackedWeight]


def _seeded(make: Callable[..., PackedWeight], **fields: object) -> Make:
    return lambda m, n: make(m, n, torch.Generator().manual_seed(0), **fields)


_uniform, _ternary, _codebook = (partial(_seeded, one) for one in (weights.uniform, weights.ternary, weights.codebook))
FLOAT, BOTH, INT8 = ("float",), ("int8", "float"), ("int8",)
WEIGHTS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "4-bit": (_uniform(bits=4), BOTH),
    "2-bit": (_uniform(bits=2), BOTH),
    "3-bit": (_uniform(bits=3), BOTH),
    "8-bit": (_uniform(bits=8), BOTH),
    "ternary, 2 bits": (_ternary(layout="two_bits"), BOTH),
    "ternary, base 3": (_ternary(layout="base3"), BOTH),
    "3:4 ternary": (_seeded(weights.sparse_ternary), INT8),
    "2 bit planes": (_seeded(weights.bit_planes, planes=2), INT8),
    "codebook 2**8 of 8": (_codebook(bits=8), FLOAT),
    "codebook 2**12 of 8": (_codebook(bits=12), FLOAT),
    "2:4 sparse": (_seeded(weights.two_of_four), FLOAT),
    "half, bitmap": (_seeded(weights.bitmap), FLOAT),
    "a tenth, rows": (_seeded(weights.sparse_rows, density=0.1), FLOAT),
    "bf16": (_seeded(weights.dense, dtype=torch.bfloat16), FLOAT),
    "rank 128, bf16": (_seeded(weights.low_rank, rank=128), FLOAT),
    "DFloat11": (_seeded(weights.dfloat11), FLOAT),
}
"""By name: how to make one, and the kinds of activations its kernel takes."""


def made(name: str, m: int, n: int) -> PackedWeight:
    return WEIGHTS[name][0](m, n)
