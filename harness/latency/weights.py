"""Random packed weights of a given shape, made fast: for speed their values do not matter.

Nothing of the size of the weight is ever computed: its bytes are a drawn tile, repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Literal

import torch
from torch import Generator, Tensor

from harness.packed import (
    BitPlanes,
    Codebook,
    Dense,
    DFloat11,
    LowRank,
    PackedWeight,
    SemiStructured,
    Sparse,
    SparseRows,
    SparseTernary,
    Ternary,
    Uniform,
    unpack,
)
from harness.packed.bits import packed_bytes
from harness.packed.tiles import TILE

GROUP = 128
"""Columns that share a scale, where that many divide the row."""
DRAWN = 1 << 20
"""Numbers of the tile that is repeated."""


def dense(m: int, n: int, g: Generator, *, dtype: torch.dtype) -> Dense:
    return Dense(_normal(g, m, n).to(dtype))


def uniform(m: int, n: int, g: Generator, *, bits: int) -> Uniform:
    """Codes of `bits` bits with a half-precision scale and an integer zero point a group."""
    group, groups = _groups(n)
    zeros = _bytes(g, packed_bytes(m * groups, bits))
    return Uniform(n, bits, group, "int", _bytes(g, m, packed_bytes(n, bits)), _scale(g, m, groups), zeros)


def ternary(m: int, n: int, g: Generator, *, layout: Literal["two_bits", "base3"]) -> Ternary:
    if layout == "two_bits":
        codes = _bytes(g, m, packed_bytes(n, 2)) & 0xAA  # digits 0 and 2
    else:
        digits = _tile(lambda count: torch.randint(0, 243, (count,), generator=g), m, -(-n // 5))
        codes = ((256 * digits + 242) // 243).to(torch.uint8)
    return Ternary(n, -1, layout, codes, _scale(g, m, 1))


def sparse_ternary(m: int, n: int, g: Generator) -> SparseTernary:
    """Three of four weights -1 or 1, the other zero: 1.25 bits."""
    tiles, (group, groups) = -(-m // TILE), _groups(n)
    codes, signs = _bytes(g, tiles, -(-n // 8), 1, TILE), _bytes(g, tiles, -(-n // 32), TILE)
    return SparseTernary(m, n, group, codes, signs, _scale(g, tiles, groups, 1, TILE))


def bit_planes(m: int, n: int, g: Generator, *, planes: int) -> BitPlanes:
    tiles, (group, groups) = -(-m // TILE), _groups(n)
    codes = _bytes(g, tiles, -(-n // 8), planes, TILE)
    return BitPlanes(m, n, group, codes, _scale(g, tiles, groups, planes, TILE), _scale(g, tiles, groups, TILE))


def codebook(m: int, n: int, g: Generator, *, bits: int) -> Codebook:
    """Vectors of eight outputs, of 2**bits; eight to sixteen bits."""
    vectors = -(-m // 8)
    high = _bytes(g, vectors, packed_bytes(n, bits - 8)) if bits > 8 else None
    return Codebook(m, n, bits, torch.randn(2**bits, 8, generator=g).half(), _bytes(g, vectors, n), high)


def two_of_four(m: int, n: int, g: Generator) -> SemiStructured:
    # The places 0 and 2 of each four, as a byte of two groups.
    index = torch.full((m, packed_bytes(2 * -(-n // 4), 2)), 0x88, dtype=torch.uint8)
    return SemiStructured(n, 2, 4, _normal(g, m, 2 * -(-n // 4)).half(), index)


def bitmap(m: int, n: int, g: Generator) -> Sparse:
    """Every second weight, found by a mask."""
    mask = torch.full((m, -(-n // 8)), 0x55, dtype=torch.uint8)
    if n % 8:
        mask[:, -1] &= (1 << n % 8) - 1
    return Sparse(n, mask, _normal(g, m * -(-n // 2)).half())


def sparse_rows(m: int, n: int, g: Generator, *, density: float) -> SparseRows:
    """A part of the weights, by their columns."""
    kept = max(1, round(n * density))
    rows = torch.arange(m + 1, dtype=torch.int32) * kept
    some = torch.stack([torch.randperm(n, generator=g)[:kept].sort().values for _ in range(min(m, 64))])
    columns = some.repeat(-(-m // len(some)), 1)[:m].flatten().to(torch.uint16 if n <= 1 << 16 else torch.int32)
    return SparseRows(n, rows, columns, _normal(g, m * kept).half())


def low_rank(m: int, n: int, g: Generator, *, rank: int) -> LowRank:
    return LowRank(_normal(g, m, rank).bfloat16(), _normal(g, rank, n).bfloat16())


def dfloat11(m: int, n: int, g: Generator) -> DFloat11:
    """Normal weights of a usual scale: how well the exponents compress depends on their spread."""
    return DFloat11.pack((0.02 * _normal(g, m, n)).bfloat16())


def copied(weight: PackedWeight) -> PackedWeight:
    """The same weight in memory of its own."""
    return unpack(weight.kind, {name: tensor.clone() for name, tensor in weight.tensors().items()}, weight.meta())


def _groups(n: int) -> tuple[int, int]:
    """(group size, groups of a row): the whole row where the usual size does not divide it."""
    return (GROUP, n // GROUP) if n % GROUP == 0 else (-1, 1)


def _bytes(g: Generator, *shape: int) -> Tensor:
    return _tile(lambda count: torch.randint(0, 256, (count,), dtype=torch.uint8, generator=g), *shape)


def _normal(g: Generator, *shape: int) -> Tensor:
    return _tile(lambda count: torch.randn(count, generator=g), *shape)


def _scale(g: Generator, *shape: int) -> Tensor:
    return _tile(lambda count: torch.rand(count, generator=g).half(), *shape)


def _tile(draw: Callable[[int], Tensor], *shape: int) -> Tensor:
    total = prod(shape)
    tile = draw(min(total, DRAWN))
    if not total:
        return tile.view(shape)
    return tile.repeat(-(-total // len(tile)))[:total].view(shape)
