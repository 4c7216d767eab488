"""Many rows of activations times uniform and ternary codes as they are stored: tiles decoded in registers (Triton)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness_kernels.gpu import uniform as few
from harness_kernels.gpu.launch import check_rows, interpreted, need_triton
from harness_kernels.gpu.registry import Case, Kernel, register

BITS = {"2": 2, "3": 3, "4": 4, "8": 8, "base3": 0}


def group_multiple() -> int:
    """Group sizes are multiples of this number of columns, or the whole row."""
    return 32


def gemm(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    layout: str,
    group_size: int,
    low_rank: tuple[Tensor, Tensor] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """x (rows, n) times the transposed weight scale[i, g] * (code[i, j] - zero[i, g]), plus `low_rank`: (rows, m).

    `layout` "2", "3", "4" or "8" bits, stored as `harness.packed.Uniform`; "two_bits" or "base3", as `Ternary`. The
    weight is rounded to the dtype of x, half precision or bfloat16, as the reference rounds it; sums are float32.
    Raises ValueError for a wrong device, dtype, shape or stride, and RuntimeError without Triton.
    """
    ternary = layout in ("two_bits", "base3")
    key = "2" if layout == "two_bits" else layout
    if key not in BITS:
        raise ValueError(f"layout: is {layout!r}; accepted are {', '.join(BITS)} and two_bits")
    check_rows(x)
    rows, m = len(x), len(codes)
    y = x.new_empty(rows, m) if out is None else out
    stored = few.checked(x, codes, scale, zero, key, group_size, group_multiple(), y)
    a, thin = _factors(x, m, low_rank)
    source = need_triton("gemm")
    blocks = {"block_rows": 16 if rows <= 16 else 32 if rows <= 32 else 64, "block_m": 64, "block_rank": 32}
    blocks["block_n"] = 64 if stored.groups == 1 or group_size % 64 == 0 else 32
    grid = (-(-rows // blocks["block_rows"]), -(-m // blocks["block_m"]))
    numbers = (rows, m, x.shape[1], stored.row_bytes, stored.group_size, stored.groups, 0 if a is None else a.shape[1])
    pointers = (x, codes, scale, *(x if t is None else t for t in (zero, a, thin)), y)
    zero_bits = {0: 0, 1: BITS[key], 2: -1}[stored.zero_kind]
    constant = 1.0 if ternary else 2.0 ** (BITS[key] - 1)
    settings = {"bits": BITS[key], "zero_bits": zero_bits, "constant": constant, "one_scale": stored.one_scale}
    source.gemm[grid](*pointers, *numbers, **settings, low_rank=a is not None, interpreted=interpreted(), **blocks)
    return y


def _factors(x: Tensor, m: int, low_rank: tuple[Tensor, Tensor] | None) -> tuple[Tensor | None, Tensor | None]:
    a, thin = few.thin_product(x, m, low_rank)
    return a, None if thin is None else thin.to(x.dtype)


def make(generator: torch.Generator, *, layout: str, rows: int, **shape: Any) -> Case:
    """The product of `uniform` with more rows, and with a weight that is rounded to the activations' dtype."""
    ternary = layout in ("two_bits", "base3")
    made = (few.make_ternary if ternary else few.make_uniform)(
        generator, rows=rows, **({"layout": layout} if ternary else {"bits": int(layout)}), **shape
    )
    x, codes, scale, *others = made.inputs
    group_size = shape.get("group_size", -1 if ternary else 128)

    def run(x: Tensor, codes: Tensor, scale: Tensor, *rest: Any) -> Tensor:
        (zero, a, b), out = rest[:-1] or (None, None, None), rest[-1]
        low_rank = None if a is None else (a, b)
        return gemm(x, codes, scale, zero, layout=layout, group_size=group_size, low_rank=low_rank, out=out)

    def exact() -> tuple[Tensor, Tensor]:
        product, allowed = made.exact()
        assert made.sizes is not None
        # A weight is off by half a unit in its last place, the thin product of the low-rank term by another one.
        return product, allowed + torch.finfo(x.dtype).eps / 2 * made.sizes()

    return Case([x, codes, scale, *others], made.out, run, exact, made.moved, made.operations)


BF16 = torch.bfloat16
CHECKS: dict[str, list[dict[str, Any]]] = {
    "uniform": [
        {"m": 70, "n": 200, "group_size": 64, "zeros": "int", "rows": 19},
        {"m": 5, "n": 77, "group_size": 32, "zeros": "real", "rows": 33, "dtype": BF16},
        {"m": 65, "n": 129, "group_size": -1, "zeros": None, "rows": 1},
        {"m": 40, "n": 300, "group_size": -1, "zeros": "int", "rows": 70, "one_scale": True, "dtype": BF16},
    ],
    "ternary": [
        {"m": 70, "n": 333, "rows": 18},
        {"m": 16, "n": 650, "group_size": 320, "dtype": BF16, "rows": 40},
    ],
    "low rank": [
        {"m": 33, "n": 130, "rank": 5, "rows": 17, "group_size": 32},
        {"m": 70, "n": 64, "rank": 40, "rows": 9, "dtype": BF16, "group_size": -1},
    ],
}

for _layout in ("4", "3", "2", "8", "two_bits", "base3"):
    _ternary = _layout in ("two_bits", "base3")
    register(
        Kernel(
            name=f"gemm ternary {_layout}" if _ternary else f"gemm {_layout} bits",
            language="Triton",
            formats=f"Ternary, {_layout}" if _ternary else f"Uniform, {_layout} bits a code",
            make=partial(make, layout=_layout),
            checks=CHECKS["ternary" if _ternary else "uniform"],
            timed={"8192x8192, 64 rows": {"m": 8192, "n": 8192, "rows": 64, "dtype": BF16}} if _layout == "4" else {},
            compared=("cuBLAS bf16",),
        )
    )
register(
    Kernel(
        name="gemm 4 bits + low rank",
        language="Triton",
        formats="Sum of Uniform and LowRank",
        make=partial(make, layout="4"),
        checks=CHECKS["low rank"],
    )
)
