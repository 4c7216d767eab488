"""Products of activations with stored weights. Shapes: x (..., n), result (..., m) in the dtype of x."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from harness_kernels import _native

Activations = Literal["float", "int8"]

MOST_ROWS = 32
"""Rows of activations up to which the kernels are used; with more, a dense product of the decoded weight is faster."""


def uniform(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    bits: int,
    group_size: int,
    activations: Activations = "float",
) -> Tensor:
    """x times the transposed weight scale[i, g] * (code[i, j] - zero[i, g]), g = j // group_size.

    `codes` (m, ceil(n * bits / 8)) uint8, bits 2, 3, 4 or 8, least significant first; `scale` (m, G) or (1, 1)
    float16; `zero` float16 like `scale`, or the integers of all groups in one string of `bits` bits each (uint8), or
    None for 2**(bits - 1). That is the stored form of `harness.packed.Uniform`. With `activations="int8"` those of
    each 512 / bits columns (64 for 3 bits) are first rounded to 8 bits with one scale, ties to even; "float" rounds
    only as float32 sums do. A row's result does not depend on the other rows, nor on the number of threads.

    Raises ValueError, naming the argument, for a wrong device, dtype, shape or stride, and for a group size that no
    kernel has (`group_multiple`).
    """
    if bits not in (2, 3, 4, 8):
        raise ValueError(f"bits: is {bits}; accepted are 2, 3, 4 and 8")
    return _run(x, codes, scale, zero, str(bits), group_size, activations)


def base3(
    x: Tensor, codes: Tensor, scale: Tensor, *, group_size: int = -1, activations: Activations = "float"
) -> Tensor:
    """The product with ternary weights (-1, 0, 1) times `scale`, five of them in a byte: 1.6 bits a weight.

    `codes` (m, ceil(n / 5)) uint8 as `pack_base3` makes them; `scale` (m, G) or (1, 1) float16; group_size -1 or a
    multiple of 320. int8 activations have one scale for each 320 columns. Errors as `uniform`.
    """
    return _run(x, codes, scale, None, "base3", group_size, activations)


def pack_base3(ternary: Tensor) -> Tensor:
    """Weights -1, 0 and 1 (..., n) into bytes (..., ceil(n / 5)), padded with zeros.

    Five digits d = t + 1 make v = 81 d0 + 27 d1 + 9 d2 + 3 d3 + d4, stored as ceil(256 v / 243): multiplying that by 3
    carries out the digits one by one, the first first.
    """
    if ternary.numel() and not bool(((ternary == -1) | (ternary == 0) | (ternary == 1)).all()):
        raise ValueError("ternary: holds values other than -1, 0 and 1")
    padded = torch.nn.functional.pad(ternary.to(torch.int32), (0, -ternary.shape[-1] % 5)) + 1
    powers = torch.tensor([81, 27, 9, 3, 1], dtype=torch.int32)
    value = (padded.unflatten(-1, (-1, 5)) * powers).sum(-1)
    return ((256 * value + 242) // 243).to(torch.uint8).contiguous()


def supports(weight: Any) -> bool:
    """Whether `matmul` has a kernel for this weight of `harness.packed`, on this machine."""
    if (
        getattr(weight, "kind", None) != "uniform"
        or not weight.codes.is_cpu
        or weight.bits_per_code not in (2, 3, 4, 8)
    ):
        return False
    whole = weight.group_size == -1 or weight.group_size >= weight.columns
    return whole or weight.group_size % group_multiple(weight.bits_per_code) == 0


def group_multiple(bits: int, activations: Activations = "float") -> int:
    """Group sizes must be a multiple of this number of columns, on this machine."""
    return _native.group_multiple(str(bits), activations == "int8")


def matmul(weight: Any, x: Tensor, *, activations: Activations = "float") -> Tensor:
    """x times the transposed packed weight, from its stored form. See `supports`."""
    if weight.permutation is not None:
        x = x.index_select(-1, weight.permutation.int())
    bits, group_size = weight.bits_per_code, weight.group_size
    return uniform(
        x, weight.codes, weight.scale, weight.zero, bits=bits, group_size=group_size, activations=activations
    )


def _run(
    x: Tensor, codes: Tensor, scale: Tensor, zero: Tensor | None, format: str, group_size: int, activations: str
) -> Tensor:
    for name, tensor in (("x", x), ("codes", codes), ("scale", scale), ("zero", zero)):
        if tensor is None and name == "zero":
            continue
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name}: is a {type(tensor).__name__}; accepted is a tensor")
        if not tensor.is_cpu:
            raise ValueError(f"{name}: is on device {tensor.device}; accepted is cpu")
    if activations not in ("float", "int8"):
        raise ValueError(f"activations: is {activations!r}; accepted are 'float' and 'int8'")
    if not x.is_floating_point() or x.ndim == 0:
        raise ValueError(f"x: has dtype {x.dtype} and shape {tuple(x.shape)}; accepted are floating rows")
    flat = x.detach().reshape(x.shape[:-1].numel(), x.shape[-1]).float().contiguous()
    y = flat.new_empty(flat.shape[0], codes.shape[0])
    _native.uniform(flat, y, codes, scale, zero, format, group_size, activations == "int8")
    return y.view(*x.shape[:-1], codes.shape[0]).to(x.dtype)
