"""Weights as floating numbers: what every other format is timed against."""

from __future__ import annotations

from typing import Literal

import torch

from harness import LayerShape, method
from harness.latency import weights
from harness.packed import CompressedLinear
from harness.packed.kernels import Choice


@method(track="latency", role="reference")
def floating(
    layer: LayerShape, *, dtype: Literal["float32", "bfloat16"] = "float32", kernel: Choice = "fastest"
) -> CompressedLinear:
    """Floating-point weights as they are: float32 goes to torch's BLAS, bfloat16 to a kernel that reads 16 bits."""
    stored = weights.dense(*layer.shape, layer.generator, dtype=getattr(torch, dtype))
    return CompressedLinear(stored, kernel=kernel)


@method(track="latency")
def entropy_coded(layer: LayerShape, *, kernel: Choice = "fastest") -> CompressedLinear:
    """DFloat11 (2025): bfloat16 with Huffman-coded exponents, decoded bit for bit before every product."""
    return CompressedLinear(weights.dfloat11(*layer.shape, layer.generator), kernel=kernel)


@method(track="latency")
def low_rank(layer: LayerShape, *, rank: int = 128, kernel: Choice = "fastest") -> CompressedLinear:
    """A product of two thin bfloat16 matrices, of at most the layer's own rank."""
    return CompressedLinear(
        weights.low_rank(*layer.shape, layer.generator, rank=min(rank, *layer.shape)), kernel=kernel
    )
