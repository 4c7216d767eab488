"""Integer codes with a scale and a zero point a group, and ternary weights."""

from __future__ import annotations

from typing import Annotated, Literal

from harness import LayerShape, OneOf, method
from harness.latency import weights
from harness.packed import CompressedLinear, Sum
from harness.packed.kernels import Choice

Codes = Annotated[int, OneOf((2, 3, 4, 8))]


@method(track="latency")
def uniform(layer: LayerShape, *, bits: Codes = 4, kernel: Choice = "fastest") -> CompressedLinear:
    """Uniform codes in groups of 128; `kernel=int8` rounds the activations to 8 bits."""
    return CompressedLinear(weights.uniform(*layer.shape, layer.generator, bits=bits), kernel=kernel)


@method(track="latency")
def uniform_plus_low_rank(
    layer: LayerShape, *, bits: Codes = 4, rank: int = 32, kernel: Choice = "fastest"
) -> CompressedLinear:
    """Uniform codes and a low-rank correction, added up: two products."""
    codes = weights.uniform(*layer.shape, layer.generator, bits=bits)
    correction = weights.low_rank(*layer.shape, layer.generator, rank=min(rank, *layer.shape))
    return CompressedLinear(Sum((codes, correction)), kernel=kernel)


@method(track="latency")
def ternary(
    layer: LayerShape, *, layout: Literal["two_bits", "base3"] = "two_bits", kernel: Choice = "fastest"
) -> CompressedLinear:
    """Weights -1, 0 and 1 with a scale a row ("1.58 bits"), in two bits or five to a byte."""
    return CompressedLinear(weights.ternary(*layer.shape, layer.generator, layout=layout), kernel=kernel)


@method(track="latency")
def ternary_3of4(layer: LayerShape, *, kernel: Choice = "int8") -> CompressedLinear:
    """Ternary weights with exactly one zero in four, in 1.25 bits, by table lookup, which rounds the activations."""
    return CompressedLinear(weights.sparse_ternary(*layer.shape, layer.generator), kernel=kernel)


@method(track="latency")
def bit_planes(
    layer: LayerShape, *, planes: Annotated[int, OneOf((1, 2, 3, 4))] = 2, kernel: Choice = "int8"
) -> CompressedLinear:
    """Sums of bit planes (T-MAC, ELUTQ) by table lookup, which rounds the activations."""
    return CompressedLinear(weights.bit_planes(*layer.shape, layer.generator, planes=planes), kernel=kernel)


@method(track="latency")
def codebook(
    layer: LayerShape, *, bits: Annotated[int, OneOf((8, 12))] = 12, kernel: Choice = "fastest"
) -> CompressedLinear:
    """Vectors of eight outputs from a codebook of 2**`bits` (VPTQ): `bits` / 8 bits a weight."""
    return CompressedLinear(weights.codebook(*layer.shape, layer.generator, bits=bits), kernel=kernel)
