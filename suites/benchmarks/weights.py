"""Random packed weights of a given shape, made fast: their values do not matter for speed."""

from __future__ import annotations

from collections.abc import Callable

import torch

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
)

GROUP = 128
Make = Callable[[int, int], PackedWeight]


def _bytes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def _uniform(bits: int) -> Make:
    def make(m: int, n: int) -> PackedWeight:
        groups = n // GROUP
        zeros = _bytes(m * groups * bits // 8)
        return Uniform(n, bits, GROUP, "int", _bytes(m, n * bits // 8), torch.rand(m, groups).half(), zeros)

    return make


def _ternary(layout: str) -> Make:
    def make(m: int, n: int) -> PackedWeight:
        # Digits of five, then the byte that stands for them; two bits hold 0 to 2.
        values = torch.randint(0, 243, (m, -(-n // 5)))
        codes = (256 * values + 242) // 243 if layout == "base3" else _bytes(m, n // 4) & 0xAA
        return Ternary(n, -1, layout, codes.to(torch.uint8), torch.rand(m, 1).half())  # type: ignore[arg-type]

    return make


def _planes(planes: int) -> Make:
    def make(m: int, n: int) -> PackedWeight:
        tiles, groups = m // 32, n // GROUP
        scale, offset = torch.rand(tiles, groups, planes, 32).half(), torch.rand(tiles, groups, 32).half()
        return BitPlanes(m, n, GROUP, _bytes(tiles, n // 8, planes, 32), scale, offset)

    return make


def _sparse_ternary(m: int, n: int) -> PackedWeight:
    tiles, scale = m // 32, torch.rand(m // 32, n // GROUP, 1, 32).half()
    return SparseTernary(m, n, GROUP, _bytes(tiles, n // 8, 1, 32), _bytes(tiles, n // 32, 32), scale)


def _two_of_four(m: int, n: int) -> PackedWeight:
    # The places 0 and 2 of each four, as a byte of two groups.
    return SemiStructured(n, 2, 4, torch.randn(m, n // 2).half(), torch.full((m, n // 8), 0x88, dtype=torch.uint8))


def _half(m: int, n: int) -> PackedWeight:
    mask = torch.full((m, n // 8), 0x5A, dtype=torch.uint8)
    return Sparse(n, mask, torch.randn(m * n // 2).half())


def _tenth(m: int, n: int) -> PackedWeight:
    kept = n // 10
    rows = torch.arange(m + 1, dtype=torch.int32) * kept
    columns = (torch.rand(m, kept) * n).long().sort().values.flatten().to(torch.uint16)
    return SparseRows(n, rows, columns, torch.randn(m * kept).half())


def _codebook(bits: int) -> Make:
    def make(m: int, n: int) -> PackedWeight:
        high = _bytes(m // 8, n * (bits - 8) // 8) if bits > 8 else None
        return Codebook(m, n, bits, torch.randn(2**bits, 8).half(), _bytes(m // 8, n), high)

    return make


FLOAT, BOTH, INT8 = ("float",), ("int8", "float"), ("int8",)
WEIGHTS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "4-bit": (_uniform(4), BOTH),
    "2-bit": (_uniform(2), BOTH),
    "3-bit": (_uniform(3), BOTH),
    "8-bit": (_uniform(8), BOTH),
    "ternary, 2 bits": (_ternary("two_bits"), BOTH),
    "ternary, base 3": (_ternary("base3"), BOTH),
    "3:4 ternary": (_sparse_ternary, INT8),
    "2 bit planes": (_planes(2), INT8),
    "codebook 2**8 of 8": (_codebook(8), FLOAT),
    "codebook 2**12 of 8": (_codebook(12), FLOAT),
    "2:4 sparse": (_two_of_four, FLOAT),
    "half, bitmap": (_half, FLOAT),
    "a tenth, rows": (_tenth, FLOAT),
    "bf16": (lambda m, n: Dense(torch.randn(m, n).bfloat16()), FLOAT),
    "rank 128, bf16": (lambda m, n: LowRank(torch.randn(m, 128).bfloat16(), torch.randn(128, n).bfloat16()), FLOAT),
    "DFloat11": (lambda m, n: DFloat11.pack((0.02 * torch.randn(m, n)).bfloat16()), FLOAT),
}
"""By name: how to make one, and the kinds of activations its kernel takes."""


def made(name: str, m: int, n: int) -> PackedWeight:
    return WEIGHTS[name][0](m, n)
