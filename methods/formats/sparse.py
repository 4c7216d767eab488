"""Weights most of which are zero: two of every four, half of them by a mask, few of them by their columns."""

from __future__ import annotations

from typing import Annotated

from harness import LayerShape, Range, method
from harness.latency import weights
from harness.packed import CompressedLinear
from harness.packed.kernels import Choice


@method(track="latency")
def two_of_four(layer: LayerShape, *, kernel: Choice = "fastest") -> CompressedLinear:
    """Two of every four weights, half precision, with two bits of place each."""
    return CompressedLinear(weights.two_of_four(*layer.shape, layer.generator), kernel=kernel)


@method(track="latency")
def half_by_mask(layer: LayerShape, *, kernel: Choice = "fastest") -> CompressedLinear:
    """Half of the weights, in half precision, found by a bit mask."""
    return CompressedLinear(weights.bitmap(*layer.shape, layer.generator), kernel=kernel)


@method(track="latency")
def sparse_rows(
    layer: LayerShape, *, density: Annotated[float, Range(0.001, 1.0)] = 0.1, kernel: Choice = "fastest"
) -> CompressedLinear:
    """A part `density` of the weights, in half precision, each with its column (CSR)."""
    return CompressedLinear(weights.sparse_rows(*layer.shape, layer.generator, density=density), kernel=kernel)
