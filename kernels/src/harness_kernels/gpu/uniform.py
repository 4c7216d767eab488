"""Few rows of activations times uniform and ternary codes as they are stored, and plus a low-rank term, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness_kernels import reference
from harness_kernels.gpu.launch import check, check_rows, launch
from harness_kernels.gpu.registry import (
    LARGE,
    Case,
    Kernel,
    product_case,
    random_bytes,
    random_floats,
    random_scales,
    register,
)

MOST_ROWS = 8
"""Rows of activations that one product of the tensor cores has room for."""
WARPS, STAGES, ROWS = 8, 3, 16
SHARED = 99 << 10
"""Bytes of shared memory that a block may have on every GPU from sm_80 on."""
TILES = {"2": (256, 80), "3": (128, 48), "4": (128, 80), "8": (64, 80), "base3": (320, 80)}
"""By format the columns of a tile and the bytes from one of its rows to the next; as in uniform.cu."""
KERNELS = {"2": "codes_of_2", "3": "codes_of_3", "4": "codes_of_4", "8": "codes_of_8", "base3": "base3"}
FACTORS = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2}


def group_multiple(layout: str) -> int:
    """Group sizes are multiples of this number of columns, or the whole row."""
    return 80 if layout == "base3" else 32


def uniform(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    bits: int,
    group_size: int,
    low_rank: tuple[Tensor, Tensor] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """x (rows, n) times the transposed weight scale[i, g] * (code[i, j] - zero[i, g]), g = j // group_size: (rows, m).

    x is half precision or bfloat16, 1 to 8 rows; sums are float32. `codes` (m, ceil(n * bits / 8)) uint8, bits 2, 3, 4
    or 8; `scale` (m, G) or (1, 1) float16; `zero` float16 like `scale`, or the integers of all groups in one string of
    `bits` bits each (uint8), or None for 2**(bits - 1): what `harness.packed.Uniform` stores. `low_rank` (A, B), A
    (m, r) and B (r, n): A B is added to the weight. Raises ValueError for a wrong device, dtype, shape or stride.
    """
    if bits not in (2, 3, 4, 8):
        raise ValueError(f"bits: is {bits}; accepted are 2, 3, 4 and 8")
    return _gemv(x, codes, scale, zero, str(bits), bits, 2 ** (bits - 1), group_size, low_rank, out)


def ternary(
    x: Tensor, codes: Tensor, scale: Tensor, *, layout: str, group_size: int = -1, out: Tensor | None = None
) -> Tensor:
    """x (rows, n) times the transposed weight scale[i, g] * t[i, j], t of -1, 0 and 1, as `harness.packed.Ternary`.

    `layout` "two_bits", codes (m, ceil(n / 4)), or "base3", codes (m, ceil(n / 5)); otherwise as `uniform`.
    """
    if layout not in ("two_bits", "base3"):
        raise ValueError(f"layout: is {layout!r}; accepted are 'two_bits' and 'base3'")
    return _gemv(x, codes, scale, None, "2" if layout == "two_bits" else layout, 2, 1, group_size, None, out)


def _gemv(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    layout: str,
    bits: int,
    zero_constant: int,
    group_size: int,
    low_rank: tuple[Tensor, Tensor] | None,
    out: Tensor | None,
) -> Tensor:
    check_rows(x, MOST_ROWS)
    (batch, n), m = x.shape, len(codes)
    y = x.new_empty(batch, m) if out is None else out
    stored = checked(x, codes, scale, zero, layout, group_size, group_multiple(layout), y)
    factor, thin = thin_product(x, m, low_rank)
    group_steps = -(-stored.group_size // group_multiple(layout))
    numbers = [batch, m, n, stored.row_bytes, group_steps, stored.groups, int(stored.one_scale)]
    numbers += [stored.zero_kind, bits, zero_constant, 0 if factor is None else factor.shape[1]]
    numbers += [0 if factor is None else FACTORS[factor.dtype]]
    warps, shared = block(layout, batch, n, stored.groups)
    launch(
        "uniform.cu",
        KERNELS[layout],
        (-(-m // ROWS), 1),
        32 * warps,
        [x, codes, scale, zero, factor, thin, y, *numbers],
        shared=shared,
        bfloat=x.dtype == torch.bfloat16,
    )
    return y


def block(layout: str, batch: int, n: int, groups: int) -> tuple[int, int]:
    """(warps, bytes of shared memory) of a block: as many warps as have tiles and room beside the scales.

    Raises ValueError where the scales alone leave no room.
    """
    columns, pitch = TILES[layout]
    of_warp = STAGES * (ROWS * pitch + batch * (2 * columns + 64))
    scales = 4 * ROWS * groups
    warps = min(WARPS, -(-n // columns), (SHARED - scales) // of_warp)
    if warps < 1:
        raise ValueError(f"scale: has {groups} groups; accepted are at most {(SHARED - of_warp) // (4 * ROWS)}")
    return warps, warps * of_warp + scales


@dataclass(frozen=True)
class Stored:
    """What the shapes of codes, scale and zero say. zero_kind: 0 a constant, 1 integers in a string, 2 float16."""

    row_bytes: int
    group_size: int
    groups: int
    one_scale: bool
    zero_kind: int


def checked(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    layout: str,
    group_size: int,
    multiple: int,
    out: Tensor,
) -> Stored:
    """Hold the tensors of a product to each other; ValueError where they do not fit."""
    (rows, n), m = x.shape, len(codes)
    row_bytes = -(-n // 5) if layout == "base3" else -(-n * int(layout) // 8)
    whole = group_size == -1 or group_size >= n
    if not whole and (group_size < 1 or group_size % multiple):
        raise ValueError(f"group_size: is {group_size}; accepted are multiples of {multiple}, or -1 for the whole row")
    groups = 1 if whole else -(-n // group_size)
    one = tuple(scale.shape) == (1, 1)
    check(x.device, codes=(codes, torch.uint8, (m, row_bytes)))
    check(x.device, scale=(scale, torch.float16, (1, 1) if one else (m, groups)))
    zero_kind = 0
    if zero is not None:
        zero_kind = 1 if zero.dtype == torch.uint8 else 2
        string = (-(-scale.numel() * int(layout) // 8),)
        check(x.device, zero=(zero, (torch.uint8, torch.float16), string if zero_kind == 1 else tuple(scale.shape)))
    check(x.device, out=(out, x.dtype, (rows, m)))
    return Stored(row_bytes, n if whole else group_size, groups, one, zero_kind)


def thin_product(x: Tensor, m: int, low_rank: tuple[Tensor, Tensor] | None) -> tuple[Tensor | None, Tensor | None]:
    """The factor on the side of the outputs, and float32 activations times the other one."""
    if low_rank is None:
        return None, None
    a, b = low_rank
    kinds = tuple(FACTORS)
    check(x.device, A=(a, kinds, (m, len(b))), B=(b, kinds, (a.shape[-1], x.shape[1])))
    return a, x.float() @ b.float().T


def _columns(groups: Tensor, columns: int, group_size: int) -> Tensor:
    return groups if groups.shape[1] == 1 else groups.repeat_interleave(group_size, 1)[:, :columns]


def make_uniform(
    generator: torch.Generator,
    *,
    bits: int,
    m: int,
    n: int,
    group_size: int = 128,
    zeros: str | None = "int",
    rows: int = 1,
    dtype: torch.dtype = torch.float16,
    one_scale: bool = False,
    rank: int = 0,
) -> Case:
    """A product with random codes, where `rank` is not 0 with a low-rank term."""
    groups = 1 if group_size == -1 else -(-n // group_size)
    shape = (1, 1) if one_scale else (m, groups)
    scale = random_scales(generator, *shape)
    string = -(-scale.numel() * bits // 8)
    real = (2**bits * torch.rand(shape, generator=generator, device=generator.device)).half()
    zero = {None: None, "int": random_bytes(generator, string), "real": real}[zeros]
    codes = random_bytes(generator, m, -(-n * bits // 8))
    x = random_floats(generator, rows, n, dtype=dtype)
    factors = [random_floats(generator, *size, dtype=dtype) for size in ((m, rank), (rank, n))] if rank else [None] * 2
    settings = {"bits": bits, "group_size": group_size}

    def run(x: Tensor, codes: Tensor, scale: Tensor, zero: Any, a: Any, b: Any, out: Tensor) -> Tensor:
        return uniform(x, codes, scale, zero, **settings, low_rank=None if a is None else (a, b), out=out)

    def weight() -> tuple[Tensor, Tensor, Tensor]:
        values = reference.uniform_weight(codes, scale, zero, columns=n, bits=bits, group_size=group_size)
        sizes = values.abs()
        if rank:
            a, b = (factor.double() for factor in factors)
            values, sizes = values + a @ b, sizes + a.abs() @ b.abs()
        # A code and its zero point are up to 2**bits each, whatever remains of their difference.
        terms = sizes + _columns(scale.double() * 2 ** (bits + 1), n, group_size)
        return values, terms, sizes

    return product_case([x, codes, scale, zero, *factors], x, m, run, weight)


def make_ternary(
    generator: torch.Generator,
    *,
    layout: str,
    m: int,
    n: int,
    group_size: int = -1,
    rows: int = 1,
    dtype: torch.dtype = torch.float16,
) -> Case:
    """A product with random ternary digits."""
    digits = torch.randint(0, 3, (m, n), generator=generator, device=generator.device)
    scale = random_scales(generator, m, 1 if group_size == -1 else -(-n // group_size))
    x = random_floats(generator, rows, n, dtype=dtype)
    codes = reference.pack_ternary(digits, layout)

    def weight() -> tuple[Tensor, Tensor, Tensor]:
        values = (digits.double() - 1) * _columns(scale.double(), n, group_size)
        return values, values.abs() + 2 * _columns(scale.double(), n, group_size), values.abs()

    settings = {"layout": layout, "group_size": group_size}

    def run(x: Tensor, codes: Tensor, scale: Tensor, out: Tensor) -> Tensor:
        return ternary(x, codes, scale, **settings, out=out)

    return product_case([x, codes, scale], x, m, run, weight)


BF16 = torch.bfloat16
CHECKS: dict[str, list[dict[str, Any]]] = {
    "uniform": [
        {"m": 33, "n": 1000, "group_size": 128, "zeros": "int"},
        {"m": 5, "n": 77, "group_size": 32, "zeros": "real", "rows": 3, "dtype": BF16},
        {"m": 17, "n": 513, "group_size": -1, "zeros": None, "rows": 8},
        {"m": 1, "n": 1, "group_size": -1, "zeros": None, "rows": 2, "dtype": BF16},
        {"m": 50, "n": 2048, "group_size": 64, "zeros": "int", "rows": 4, "dtype": BF16},
        {"m": 31, "n": 4099, "group_size": 96, "zeros": "real", "rows": 7},
        {"m": 40, "n": 300, "group_size": -1, "zeros": "int", "one_scale": True},
    ],
    "ternary": [
        {"m": 19, "n": 1003, "rows": 2},
        {"m": 16, "n": 700, "group_size": 320, "dtype": BF16, "rows": 5},
        {"m": 3, "n": 4},
        {"m": 65, "n": 3000, "group_size": 640, "rows": 8},
    ],
    "low rank": [
        {"m": 33, "n": 520, "rank": 5, "rows": 3},
        {"m": 20, "n": 96, "group_size": 32, "rank": 65, "rows": 8, "dtype": BF16},
    ],
}

for _bits in (4, 3, 2, 8):
    register(
        Kernel(
            name=f"gemv {_bits} bits",
            language="CUDA",
            formats=f"Uniform, {_bits} bits a code",
            make=partial(make_uniform, bits=_bits),
            checks=CHECKS["uniform"],
            timed=LARGE,
            compared=("cuBLAS bf16", "int4pack_mm") if _bits == 4 else ("cuBLAS bf16",),
        )
    )
for _layout in ("two_bits", "base3"):
    register(
        Kernel(
            name=f"gemv ternary {_layout}",
            language="CUDA",
            formats=f"Ternary, {_layout}",
            make=partial(make_ternary, layout=_layout),
            checks=CHECKS["ternary"],
            timed=LARGE,
            compared=("cuBLAS bf16",),
        )
    )
register(
    Kernel(
        name="gemv 4 bits + low rank",
        language="CUDA",
        formats="Sum of Uniform and LowRank",
        make=partial(make_uniform, bits=4),
        checks=CHECKS["low rank"],
        timed={label: {**shape, "rank": 64} for label, shape in LARGE.items()},
        compared=("cuBLAS bf16",),
    )
)
