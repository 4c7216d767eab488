"""One random packed weight of every kind, for the tests of harness.packed."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.packed import (
    BitPlanes,
    Codebook,
    Dense,
    DFloat11,
    LowRank,
    PackedWeight,
    Rows,
    SemiStructured,
    Sparse,
    SparseRows,
    SparseTernary,
    Sum,
    Ternary,
    Uniform,
)
from harness.packed.bits import pack_bits


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quantized(
    gen: torch.Generator, m: int, n: int, *, bits: int = 3, group_size: int = 4, zeros: str | None = "int", order=None
) -> tuple[Uniform, tuple[Tensor, Tensor, Tensor | None]]:
    """A uniform weight, and the codes, scale and zero points that were packed."""
    groups = 1 if group_size == -1 else -(-n // group_size)
    codes = torch.randint(0, 2**bits, (m, n), generator=gen)
    scale = (torch.rand(m, groups, generator=gen) + 0.1).half().float()
    whole = torch.randint(0, 2**bits, (m, groups), generator=gen)
    zero = {None: None, "int": whole, "real": whole + 0.5}[zeros]
    return Uniform.pack(codes, scale, zero, bits=bits, group_size=group_size, permutation=order), (codes, scale, zero)


def matrix(gen: torch.Generator, m: int, n: int) -> Tensor:
    """Float32 numbers that half precision holds."""
    return torch.randn(m, n, generator=gen).half().float()


def two_of_four(gen: torch.Generator, m: int, n: int) -> Tensor:
    """A random mask that keeps at most two of every four columns."""
    groups = -(-n // 4)
    rank = torch.rand(m, groups, 4, generator=gen).argsort(-1).argsort(-1)
    return (rank < 2).flatten(1)[:, :n]


def three_of_four(gen: torch.Generator, m: int, n: int) -> Tensor:
    """Random -1 and 1 with one 0 in each four columns."""
    signs = torch.randint(0, 2, (m, -(-n // 4), 4), generator=gen) * 2 - 1
    zero = torch.randint(0, 4, (*signs.shape[:2], 1), generator=gen)
    return signs.scatter_(-1, zero, 0).flatten(1)[:, :n]


def bit_planes(
    gen: torch.Generator, m: int, n: int, *, planes: int = 2, group_size: int = 8, single: bool = False
) -> BitPlanes:
    groups = 1 if group_size == -1 else -(-n // group_size)
    bits = torch.randint(0, 2, (m, n, planes), generator=gen)
    scale = torch.rand(m, groups, 1 if single else planes, generator=gen) + 0.1
    return BitPlanes.pack(bits, scale, torch.randn(m, groups, generator=gen), group_size=group_size)


def codebook(gen: torch.Generator, m: int, n: int, *, bits: int = 3, vector: int = 4, norm: bool = True) -> Codebook:
    index = torch.randint(0, 2**bits, (-(-m // vector), n), generator=gen)
    book = torch.randn(2**bits, vector, generator=gen)
    if not norm:
        return Codebook.pack(index, book, rows=m)
    scale, bias = torch.rand(n, generator=gen) + 0.5, torch.randn(n, generator=gen)
    return Codebook.pack(index, book, rows=m, scale=scale, bias=bias, permutation=torch.randperm(n, generator=gen))


def bitmap(weight: Tensor, mask: Tensor) -> Sparse:
    return Sparse(weight.shape[1], pack_bits(mask.to(torch.uint8), 1), weight[mask].half())


def compressed_rows(weight: Tensor, mask: Tensor) -> SparseRows:
    rows = torch.tensor([0, *mask.sum(1).cumsum(0).tolist()], dtype=torch.int32)
    return SparseRows(weight.shape[1], rows, mask.nonzero()[:, 1].to(torch.uint16), weight[mask].half())


def every_kind(seed: int, m: int, n: int) -> dict[str, PackedWeight]:
    gen = generator(seed)
    weight, mask = matrix(gen, m, n), torch.rand(m, n, generator=gen) < 0.4
    uniform, _ = quantized(gen, m, n, order=torch.randperm(n, generator=gen))
    low_rank = LowRank(matrix(gen, m, 2).bfloat16(), matrix(gen, 2, n).bfloat16())
    return {
        "dense": Dense(weight.bfloat16()),
        "uniform": uniform,
        "lowrank": low_rank,
        "bit_planes": bit_planes(gen, m, n),
        "codebook": codebook(gen, m, n),
        "dfloat11": DFloat11.pack(weight.bfloat16()),
        "sparse_ternary": SparseTernary.pack(three_of_four(gen, m, n), torch.rand(m, 1, generator=gen) + 0.1),
        "ternary": Ternary.pack(torch.randint(-1, 2, (m, n), generator=gen), torch.rand(m, 1, generator=gen) + 0.1),
        "sparse": bitmap(weight, mask),
        "sparse_rows": compressed_rows(weight, mask),
        "semi_structured": SemiStructured.pack(weight, two_of_four(gen, m, n)),
        "sum": Sum((uniform, low_rank, compressed_rows(weight, mask))),
        "rows": Rows((uniform, Sum((low_rank, bitmap(weight, mask))), Dense(weight))),
    }
