"""Products with the packed weights of `harness.packed` on a GPU: which kernel runs each kind, and which has none."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness_kernels.gpu import codebook, dfloat11, emulate, gemm, lookup, sparse, uniform
from harness_kernels.gpu.launch import FLOATS

FEW = uniform.MOST_ROWS
"""Rows of activations that the products of stored codes take; with more, tiles are decoded into a matrix product."""

MOST_GROUPS = 1024
"""Of a row, whose scales and zero points are in shared memory beside the tiles."""


def name(weight: Any, dtype: torch.dtype) -> str | None:
    """What `matmul` runs this weight with for a few activations of that dtype, in words; None if it has no kernel.

    The weight is on a GPU that CuPy can use, its scales are half precision, its groups those that the kernels take.
    """
    if dtype not in FLOATS or weight.kind not in _KERNELS or not _reachable(weight):
        return None
    return "harness_kernels CUDA" if _takes(weight) else None


def matmul(weight: Any, x: Tensor) -> Tensor:
    """x (..., n) times the transposed packed weight, (..., m) in the dtype of x; what `name` names is accepted."""
    rows = x.detach().reshape(-1, x.shape[-1]).contiguous()
    if not len(rows):
        return x.new_empty(*x.shape[:-1], weight.shape[0])
    return _KERNELS[weight.kind](weight, _aligned(rows)).view(*x.shape[:-1], weight.shape[0])


def _reachable(weight: Any) -> bool:
    tensors = list(weight.tensors().values())
    if tensors[0].is_cuda:
        return _cupy() and all(t.device == tensors[0].device for t in tensors)
    return emulate.active() and all(t.is_cpu for t in tensors)


@functools.cache
def _cupy() -> bool:
    return torch.cuda.is_available() and importlib.util.find_spec("cupy") is not None


@functools.cache
def _triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _takes(weight: Any) -> bool:
    kind = weight.kind
    if kind == "sum":
        parts = [part for part in weight.parts if part.kind not in ("dense", "lowrank")]
        return bool(parts) and all(part.kind in _KERNELS and _takes(part) for part in parts)
    if kind == "rows":
        return all(part.kind in _KERNELS and _takes(part) for part in weight.parts)
    if kind in ("uniform", "ternary"):
        layout = _layout(weight)
        fits = layout in uniform.KERNELS and _whole_groups(weight, uniform.group_multiple(layout))
        return fits and weight.groups <= MOST_GROUPS
    if kind == "semi_structured":
        return (weight.keep, weight.group) == (2, 4) and weight.values.dtype == torch.float16
    if kind == "codebook":
        return weight.vector in codebook.VECTORS
    return True


def _layout(weight: Any) -> str:
    if weight.kind == "uniform":
        return str(weight.bits_per_code)
    return "base3" if weight.layout == "base3" else "2"


def _whole_groups(weight: Any, multiple: int) -> bool:
    return weight.group_size == -1 or weight.group_size >= weight.columns or weight.group_size % multiple == 0


def _aligned(x: Tensor) -> Tensor:
    return x.clone() if x.data_ptr() % 16 else x


def _decoded(weight: Any, x: Tensor) -> Tensor:
    return x @ weight.dequantize().to(x.dtype).T


def _few(kernel: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """The kernel for a few rows of activations; with more, a matrix product with the decoded weight."""
    return lambda weight, x: kernel(weight, x) if len(x) <= FEW else _decoded(weight, x)


def _uniform(weight: Any, x: Tensor, low_rank: tuple[Tensor, Tensor] | None = None) -> Tensor:
    permutation, columns = getattr(weight, "permutation", None), x
    if permutation is not None:
        columns = x.index_select(-1, permutation.int())
        if low_rank is not None:
            low_rank = low_rank[0], low_rank[1].index_select(-1, permutation.int())
    many = len(x) > FEW
    if many and (not _triton() or not x.is_cuda or not _whole_groups(weight, gemm.group_multiple())):
        y = _decoded(weight, x)
        return y if low_rank is None else y + (x @ low_rank[1].to(x.dtype).T) @ low_rank[0].to(x.dtype).T
    ternary, group_size = weight.kind == "ternary", weight.group_size
    zero = None if ternary else weight.zero
    if many:
        layout = weight.layout if ternary else str(weight.bits_per_code)
        settings = {"layout": layout, "group_size": group_size, "low_rank": low_rank}
        return gemm.gemm(columns, weight.codes, weight.scale, zero, **settings)
    if ternary:
        return uniform.ternary(columns, weight.codes, weight.scale, layout=weight.layout, group_size=group_size)
    return uniform.uniform(
        columns, weight.codes, weight.scale, zero, bits=weight.bits_per_code, group_size=group_size, low_rank=low_rank
    )


def _lookup(weight: Any, x: Tensor) -> Tensor:
    signs, offset = getattr(weight, "signs", None), getattr(weight, "offset", None)
    m, group_size = weight.shape[0], weight.group_size
    return lookup.lookup(x, weight.codes, signs, weight.scale, offset, m=m, group_size=group_size)


def _codebook(weight: Any, x: Tensor) -> Tensor:
    if weight.permutation is not None:
        x = x.index_select(-1, weight.permutation.int())
    named = {"m": weight.shape[0], "scale": weight.scale, "bias": weight.bias}
    return codebook.codebook(x, weight.codes, weight.high, weight.book, **named)


def _two_of_four(weight: Any, x: Tensor) -> Tensor:
    return sparse.two_of_four(x, weight.values, weight.index)


def _dfloat11(weight: Any, x: Tensor) -> Tensor:
    (decoded,) = dfloat11.decoder(weight).decode()
    return x @ decoded.view(weight.shape).to(x.dtype).T


def _sum(weight: Any, x: Tensor) -> Tensor:
    """Of the first quantized part and the first low-rank one a single pass; the others are added to it."""
    parts = list(weight.parts)
    codes = next((p for p in parts if p.kind == "uniform"), None)
    low_rank = next((p for p in parts if p.kind == "lowrank"), None)
    if codes is None or low_rank is None:
        first, *others = (_part(p, x) for p in parts)
    else:
        first = _uniform(codes, x, (low_rank.A, low_rank.B))
        others = [_part(p, x) for p in parts if p is not codes and p is not low_rank]
    return sum(others, first)


def _part(weight: Any, x: Tensor) -> Tensor:
    return _KERNELS[weight.kind](weight, x) if weight.kind in _KERNELS else weight.matmul(x)


def _rows(weight: Any, x: Tensor) -> Tensor:
    return torch.cat([_part(part, x) for part in weight.parts], -1)


_KERNELS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "bit_planes": _few(_lookup),
    "codebook": _few(_codebook),
    "dfloat11": _dfloat11,
    "rows": _rows,
    "semi_structured": _few(_two_of_four),
    "sparse_ternary": _few(_lookup),
    "sum": _sum,
    "ternary": _uniform,
    "uniform": _uniform,
}
