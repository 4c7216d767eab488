"""Products with the packed weights of `harness.packed`: which kernel runs each kind, and which has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness_kernels import cpu
from harness_kernels.cpu import Activations


def supports(weight: Any, activations: Activations = "float") -> bool:
    """Whether `matmul` has a kernel for this weight and kind of activations on this machine.

    Table lookup (bit planes, sparse ternary) rounds its tables, so it is there for int8 activations only. Kinds whose
    values are floating numbers (dense, sparse, codebook...) multiply them by floating activations either way.
    """
    kind = getattr(weight, "kind", None)
    if not cpu.available() or kind not in _KERNELS or not all(t.is_cpu for t in weight.tensors().values()):
        return False
    if kind in ("sum", "rows"):
        return all(supports(part, activations) for part in weight.parts)
    if kind in ("bit_planes", "sparse_ternary"):
        return activations == "int8"
    if kind in ("uniform", "ternary"):
        bits = 2 if kind == "ternary" else weight.bits_per_code
        whole = weight.group_size == -1 or weight.group_size >= weight.columns
        if kind == "ternary" and weight.layout == "base3":
            return whole or weight.group_size % 320 == 0
        return bits in (2, 3, 4, 8) and (whole or weight.group_size % cpu.group_multiple(bits, activations) == 0)
    if kind == "semi_structured":
        return (weight.keep, weight.group) == (2, 4) and weight.values.dtype == torch.float16
    if kind in ("sparse", "sparse_rows"):
        return weight.values.dtype == torch.float16
    return all(t.dtype in (torch.float32, torch.float16, torch.bfloat16) for t in _floats(weight))


def matmul(weight: Any, x: Tensor, *, activations: Activations = "float") -> Tensor:
    """x (..., n) times the transposed packed weight, from its stored form; what `supports` says is accepted."""
    return _KERNELS[weight.kind](weight, x, activations)


def _floats(weight: Any) -> list[Tensor]:
    return {"dense": lambda: [weight.weight], "lowrank": lambda: [weight.A, weight.B]}.get(weight.kind, list)()


def _uniform(weight: Any, x: Tensor, activations: Activations) -> Tensor:
    if weight.permutation is not None:
        x = x.index_select(-1, weight.permutation.int())
    bits, group_size = weight.bits_per_code, weight.group_size
    return cpu.uniform(
        x, weight.codes, weight.scale, weight.zero, bits=bits, group_size=group_size, activations=activations
    )


def _ternary(weight: Any, x: Tensor, activations: Activations) -> Tensor:
    if weight.layout == "base3":
        return cpu.base3(x, weight.codes, weight.scale, group_size=weight.group_size, activations=activations)
    return cpu.two_bit_ternary(x, weight.codes, weight.scale, group_size=weight.group_size, activations=activations)


def _dense(weight: Any, x: Tensor, activations: Activations) -> Tensor:
    return _dense_product(x, weight.weight)


def _lowrank(weight: Any, x: Tensor, activations: Activations) -> Tensor:
    return _dense_product(_dense_product(x.float(), weight.B), weight.A).to(x.dtype)


def _dense_product(x: Tensor, weight: Tensor) -> Tensor:
    if x.shape[:-1].numel() > cpu.MOST_ROWS or weight.dtype == torch.float32:
        return (x.float() @ weight.float().T).to(x.dtype)
    return cpu.dense(x, weight.contiguous())


def _two_of_four(weight: Any, x: Tensor, activations: Activations) -> Tensor:
    return cpu.two_of_four(x, weight.values, weight.index)


def _bitmap(weight: Any, x: Tensor, activations: Activations) -> Tensor:
    return cpu.bitmap(x, weight.mask, weight.values)


def _sparse_rows(weight: Any, x: Tensor, activations: Activations) -> Tensor:
    return cpu.sparse_rows(x, weight.rows, weight.columns, weight.values)


def _codebook(weight: Any, x: Tensor, activations: Activations) -> Tensor:
    if weight.permutation is not None:
        x = x.index_select(-1, weight.permutation.int())
    scaled = x if weight.scale is None else x.float() * weight.scale.float()
    y = cpu.codebook(scaled, weight.codes, weight.high, weight.book, bits=weight.index_bits, rows=weight.shape[0])
    if weight.bias is not None:
        y = y + (x.float() @ weight.bias.float())[..., None]
    return y.to(x.dtype)


def _lookup(weight: Any, x: Tensor, activations: Activations) -> Tensor:
    signs, offset = getattr(weight, "signs", None), getattr(weight, "offset", None)
    return cpu.lookup(x, weight.codes, signs, weight.scale, offset, rows=weight.shape[0], group_size=weight.group_size)


def _dfloat11(weight: Any, x: Tensor, activations: Activations) -> Tensor:
    decoded = cpu.dfloat11(weight.stream, weight.gaps, weight.positions, weight.lengths, weight.rest)
    return _dense_product(x, decoded.view(weight.shape))


def _sum(weight: Any, x: Tensor, activations: Activations) -> Tensor:
    first, *others = (matmul(part, x.float(), activations=activations) for part in weight.parts)
    return sum(others, first).to(x.dtype)


def _rows(weight: Any, x: Tensor, activations: Activations) -> Tensor:
    return torch.cat([matmul(part, x, activations=activations) for part in weight.parts], -1)


def _few(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The kernel for a few rows of activations; with more, the BLAS on the decoded weight."""

    def run(weight: Any, x: Tensor, activations: Activations) -> Tensor:
        if x.shape[:-1].numel() <= cpu.MOST_ROWS:
            return kernel(weight, x, activations)
        return (x.float() @ weight.dequantize().T).to(x.dtype)

    return run


_KERNELS: dict[str, Callable[[Any, Tensor, Activations], Tensor]] = {
    "bit_planes": _few(_lookup),
    "codebook": _few(_codebook),
    "dense": _dense,
    "dfloat11": _dfloat11,
    "lowrank": _lowrank,
    "rows": _rows,
    "semi_structured": _few(_two_of_four),
    "sparse": _few(_bitmap),
    "sparse_rows": _few(_sparse_rows),
    "sparse_ternary": _few(_lookup),
    "sum": _sum,
    "ternary": _ternary,
    "uniform": _uniform,
}
