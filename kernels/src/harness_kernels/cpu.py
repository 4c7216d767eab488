"""CPU products of activations with stored weights. Shapes: x (..., n), result (..., m) in the dtype of x.

Every function raises ValueError, naming the argument, for a wrong device, dtype, shape or stride, and RuntimeError
where the compiled part is not there. A row's result does not depend on the other rows, nor on the number of threads.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

try:
    from harness_kernels import _native
except ImportError:  # from a checkout, or where no compiler was
    _native = None  # type: ignore[assignment]

Activations = Literal["float", "int8"]

MOST_ROWS = 32
"""Rows of activations up to which the kernels are used; with more, tiles of the weight are decoded into the BLAS."""
TILE_BYTES = 1 << 22
"""Of a tile of decoded rows: it stays in the cache while it is multiplied."""


def available() -> bool:
    """Whether the compiled kernels are installed."""
    return _native is not None


def native() -> Any:
    """The compiled part. Raises RuntimeError where it is not installed."""
    if _native is None:
        raise RuntimeError("the CPU kernels are not compiled here: pip install ./kernels, which needs a C++20 compiler")
    return _native


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
    only as float32 sums do (with AVX2 and 2 or 4 bits an activation may be off by 2**-24 of the largest of those
    columns). Group sizes are multiples of `group_multiple`.
    """
    if bits not in (2, 3, 4, 8):
        raise ValueError(f"bits: is {bits}; accepted are 2, 3, 4 and 8")
    return _coded(x, codes, scale, zero, str(bits), group_size, activations)


def base3(
    x: Tensor, codes: Tensor, scale: Tensor, *, group_size: int = -1, activations: Activations = "float"
) -> Tensor:
    """The product with ternary weights (-1, 0, 1) times `scale`, five of them in a byte: 1.6 bits a weight.

    `codes` (m, ceil(n / 5)) uint8 as `harness.packed.Ternary` stores them; `scale` (m, G) or (1, 1) float16;
    group_size -1 or a multiple of 320. int8 activations have one scale for each 320 columns.
    """
    return _coded(x, codes, scale, None, "base3", group_size, activations)


def two_bit_ternary(
    x: Tensor, codes: Tensor, scale: Tensor, *, group_size: int = -1, activations: Activations = "float"
) -> Tensor:
    """The product with ternary weights stored as t + 1 in two bits, `codes` (m, ceil(n / 4)); otherwise as `base3`."""
    return _coded(x, codes, scale, None, "ternary", group_size, activations)


def group_multiple(bits: int, activations: Activations = "float") -> int:
    """Group sizes must be a multiple of this number of columns, on this machine."""
    return native().group_multiple(str(bits), activations == "int8")


def dense(x: Tensor, weight: Tensor) -> Tensor:
    """The product with weight (m, n) of float32, float16 or bfloat16, as it is stored."""
    return _product(x, weight.shape[0], native().dense, weight=weight)


def two_of_four(x: Tensor, values: Tensor, index: Tensor) -> Tensor:
    """The product with two of every four columns: values (m, 2 ceil(n / 4)) float16, two bits of place each."""
    return _product(x, values.shape[0], native().two_of_four, values=values, index=index)


def bitmap(x: Tensor, mask: Tensor, values: Tensor) -> Tensor:
    """The product with the float16 `values` that a mask (m, ceil(n / 8)) uint8 keeps, row by row."""
    return _product(x, mask.shape[0], native().bitmap, mask=mask, values=values)


def sparse_rows(x: Tensor, rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """The product with compressed rows: starts (m + 1) int32, columns uint16 or int32, values float16."""
    return _product(x, max(rows.shape[0] - 1, 0), native().sparse_rows, rows=rows, columns=columns, values=values)


def codebook(x: Tensor, codes: Tensor, high: Tensor | None, book: Tensor, *, bits: int, rows: int) -> Tensor:
    """The product with vectors of outputs from `book` (2**bits, v), at indices as `harness.packed.Codebook` has."""
    book = book.float().contiguous()
    return _product(x, rows, native().codebook, codes=codes, high=high, book=book, bits=bits)


def lookup(
    x: Tensor, codes: Tensor, signs: Tensor | None, scale: Tensor, offset: Tensor | None, *, rows: int, group_size: int
) -> Tensor:
    """The product by table lookup: bit planes, or sparse ternary where `signs` are given. See `harness.packed`.

    Tables of the sums of four activations are rounded to 8 bits, with one scale for 64 columns or fewer.
    """
    weight = {"codes": codes, "signs": signs, "scale": scale, "offset": offset}
    return _product(x, rows, native().lookup, **weight, group_size=group_size)


def dfloat11(stream: Tensor, gaps: Tensor, positions: Tensor, lengths: Tensor, rest: Tensor) -> Tensor:
    """The bfloat16 numbers of `harness.packed.DFloat11`, bit for bit."""
    parts = {"stream": stream, "gaps": gaps, "positions": positions, "lengths": lengths, "rest": rest}
    out = torch.empty(rest.shape, dtype=torch.bfloat16)
    native().dfloat11(_handed("out", out), *(_handed(name, part) for name, part in parts.items()))
    return out


def _coded(
    x: Tensor, codes: Tensor, scale: Tensor, zero: Tensor | None, format: str, group_size: int, activations: str
) -> Tensor:
    if activations not in ("float", "int8"):
        raise ValueError(f"activations: is {activations!r}; accepted are 'float' and 'int8'")
    for name, part in (("codes", codes), ("scale", scale)):
        if not isinstance(part, Tensor):
            raise ValueError(f"{name}: is a {type(part).__name__}; accepted is a tensor")
    weight = {"codes": codes, "scale": scale, "zero": zero, "format": format, "group_size": group_size}
    if activations == "float" and x.numel() > MOST_ROWS * x.shape[-1]:
        return _by_tiles(x, codes.shape[0], weight)
    return _product(x, codes.shape[0], native().uniform, **weight, int8=activations == "int8")


def _by_tiles(x: Tensor, m: int, weight: dict[str, Any]) -> Tensor:
    flat = _rows(x)
    n = flat.shape[1]
    y = flat.new_empty(len(flat), m)
    step = max(64, TILE_BYTES // (4 * n))
    tile = flat.new_empty(min(step, m), n)
    for first in range(0, m, step):
        part = tile[: min(step, m - first)]
        native().uniform_decode(part, first, **weight)
        torch.mm(flat, part.T, out=y[:, first : first + len(part)])
    return y.view(*x.shape[:-1], m).to(x.dtype)


def _product(x: Tensor, m: int, kernel: Any, **weight: Any) -> Tensor:
    # Every step in Python takes microseconds, of products that take a hundred.
    parts = [_handed(name, part) if isinstance(part, Tensor) else part for name, part in weight.items()]
    flat = _rows(x)
    y = torch.empty(flat.shape[0], m)
    kernel(_handed("x", flat), _handed("y", y), *parts)
    return y if flat is x else y.view(*x.shape[:-1], m).to(x.dtype)


def _rows(x: Tensor) -> Tensor:
    """(rows, n) float32, contiguous: x itself where it is that."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x: is a {type(x).__name__}; accepted is a tensor")
    if x.dtype is torch.float32 and x.ndim == 2 and x.is_contiguous():
        return x
    if not x.is_floating_point() or x.ndim == 0:
        raise ValueError(f"x: has dtype {x.dtype} and shape {tuple(x.shape)}; accepted are floating rows")
    return x.detach().reshape(x.shape[:-1].numel(), x.shape[-1]).float().contiguous()


def _handed(name: str, tensor: Tensor) -> Any:
    """The tensor for the compiled part, without a copy: `Tensor.__dlpack__` takes ten times as long."""
    if not tensor.is_cpu:
        raise ValueError(f"{name}: is on device {tensor.device}; accepted is cpu")
    return to_dlpack(tensor.detach() if tensor.requires_grad else tensor)
