"""Few rows of activations times bit planes and sparse ternary weights, by table lookup, from their stored form."""

from __future__ import annotations

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

MOST_ROWS, TILE, CHUNK, STAGES = 8, 32, 64, 4
SHARED = 64 << 10
"""Bytes of shared memory that a block takes at most: warps are left out until it fits."""


def lookup(
    x: Tensor,
    codes: Tensor,
    signs: Tensor | None,
    scale: Tensor,
    offset: Tensor | None,
    *,
    m: int,
    group_size: int,
    out: Tensor | None = None,
) -> Tensor:
    """x (rows, n) times the transposed weight (m, n): (rows, m), from tables that are not rounded.

    x is half precision or bfloat16, 1 to 8 rows; sums are float32. Bit planes: `codes` (tiles, ceil(n / 8), planes, 32)
    uint8, `scale` (tiles, G, planes or 1, 32) and `offset` (tiles, G, 32) float16, `signs` None. Ternary weights with
    one zero in four: one plane of indices, `signs` (tiles, ceil(n / 32), 32), `offset` None. That is what
    `harness.packed.BitPlanes` and `SparseTernary` store. Raises ValueError for a wrong device, dtype, shape or stride.
    """
    check_rows(x, MOST_ROWS)
    (rows, n), tiles = x.shape, -(-m // TILE)
    if group_size != -1 and (group_size < 1 or group_size % 8):
        raise ValueError(f"group_size: is {group_size}; accepted are multiples of 8, or -1 for the whole row")
    groups = 1 if group_size == -1 or group_size >= n else -(-n // group_size)
    planes = codes.shape[2] if codes.ndim == 4 else 0
    scale_planes = scale.shape[2] if scale.ndim == 4 and scale.shape[2] in (1, planes) else planes
    check(x.device, codes=(codes, torch.uint8, (tiles, -(-n // 8), planes, TILE)))
    check(x.device, scale=(scale, torch.float16, (tiles, groups, scale_planes, TILE)))
    if signs is not None:
        check(x.device, signs=(signs, torch.uint8, (tiles, -(-n // 32), TILE)))
    if offset is not None:
        check(x.device, offset=(offset, torch.float16, (tiles, groups, TILE)))
    y = x.new_empty(rows, m) if out is None else out
    check(x.device, out=(y, x.dtype, (rows, m)))
    size = n if groups == 1 else group_size
    batch = 1 << (rows - 1).bit_length()
    of_x = x if batch == rows else torch.cat([x, x.new_zeros(batch - rows, n)])
    of_y = y if batch == rows else y.new_empty(batch, m)
    span = min(groups, -(-CHUNK // size) + 1)
    stage = TILE * (
        8 * planes + 2 * span * scale_planes + (0 if signs is None else 2) + (0 if offset is None else 2 * span)
    )
    of_warp = STAGES * stage + batch * CHUNK // 4 * 64
    warps = max(1, min(8, -(-n // CHUNK), SHARED // of_warp))
    numbers = [m, n, planes, scale_planes, -(-size // 8), groups, span]
    launch(
        "lookup.cu",
        f"lookup_{batch}",
        (tiles, 1),
        32 * warps,
        [of_x, codes, signs, scale, offset, of_y, *numbers],
        shared=warps * of_warp,
        bfloat=x.dtype == torch.bfloat16,
    )
    return y if of_y is y else y.copy_(of_y[:rows])


def make(
    generator: torch.Generator,
    *,
    m: int,
    n: int,
    planes: int = 0,
    group_size: int = 128,
    shared_scale: bool = False,
    rows: int = 1,
    dtype: torch.dtype = torch.float16,
) -> Case:
    """A product with random bit planes, or with sparse ternary weights where `planes` is 0."""
    tiles, groups = -(-m // TILE), 1 if group_size == -1 else -(-n // group_size)
    sparse = planes == 0
    codes = random_bytes(generator, tiles, -(-n // 8), max(planes, 1), TILE)
    scale = random_scales(generator, tiles, groups, 1 if sparse or shared_scale else planes, TILE)
    signs = random_bytes(generator, tiles, -(-n // 32), TILE) if sparse else None
    offset = None if sparse else random_floats(generator, tiles, groups, TILE)
    x = random_floats(generator, rows, n, dtype=dtype)
    settings = {"m": m, "group_size": group_size}

    def run(x: Tensor, codes: Tensor, signs: Any, scale: Tensor, offset: Any, out: Tensor) -> Tensor:
        return lookup(x, codes, signs, scale, offset, **settings, out=out)

    def weight() -> tuple[Tensor, Tensor, Tensor]:
        values, terms = reference.lookup_weight(codes, signs, scale, offset, rows=m, columns=n, group_size=group_size)
        return values, terms, values.abs()

    return product_case([x, codes, signs, scale, offset], x, m, run, weight)


BF16 = torch.bfloat16
CHECKS: list[dict[str, Any]] = [
    {"m": 33, "n": 200, "group_size": 64},
    {"m": 5, "n": 77, "group_size": 8, "rows": 3, "dtype": BF16},
    {"m": 70, "n": 1027, "group_size": -1, "rows": 8},
    {"m": 1, "n": 1, "group_size": -1},
    {"m": 32, "n": 999, "group_size": 24, "rows": 2, "dtype": BF16},
    {"m": 40, "n": 2100, "group_size": 128, "rows": 5},
]

for _planes in (1, 2, 3, 4):
    register(
        Kernel(
            name=f"lookup {_planes} {'plane' if _planes == 1 else 'planes'}",
            language="CUDA",
            formats=f"BitPlanes, {_planes}",
            make=partial(make, planes=_planes),
            checks=[*CHECKS, {"m": 37, "n": 300, "group_size": 64, "shared_scale": True, "rows": 2}],
            timed=LARGE if _planes in (1, 2) else {},
            compared=("cuBLAS bf16",),
        )
    )
register(
    Kernel(
        name="lookup sparse ternary",
        language="CUDA",
        formats="SparseTernary",
        make=make,
        checks=CHECKS,
        timed={label: {**shape, "group_size": -1} for label, shape in LARGE.items()},
        compared=("cuBLAS bf16",),
    )
)
