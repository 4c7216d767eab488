"""Few rows of activations times weights of which two of every four columns are kept, from their stored form."""

from __future__ import annotations

import torch
from torch import Tensor

from harness_kernels import reference
from harness_kernels.gpu.launch import check, check_rows, launch
from harness_kernels.gpu.registry import LARGE, Case, Kernel, product_case, random_bytes, random_floats, register

MOST_ROWS, WARPS = 8, 8


def two_of_four(x: Tensor, values: Tensor, index: Tensor, *, out: Tensor | None = None) -> Tensor:
    """x (rows, n) times the transposed weight (m, n) with two of four columns kept: (rows, m).

    x is half precision or bfloat16, 1 to 8 rows; sums are float32. `values` (m, 2 ceil(n / 4)) float16 and `index`
    (m, ceil(values / 4)) uint8, two bits of place each: what `harness.packed.SemiStructured` stores. Raises ValueError
    for a wrong device, dtype, shape or stride.
    """
    check_rows(x, MOST_ROWS)
    (rows, n), m = x.shape, len(values)
    kept = -(-n // 4) * 2
    index_bytes = -(-kept // 4)
    check(x.device, values=(values, torch.float16, (m, kept)), index=(index, torch.uint8, (m, index_bytes)))
    y = x.new_empty(rows, m) if out is None else out
    check(x.device, out=(y, x.dtype, (rows, m)))
    launch(
        "sparse.cu",
        "two_of_four",
        (-(-m // WARPS), 1),
        32 * WARPS,
        [x, values, index, y, m, n, kept, index_bytes],
        bfloat=x.dtype == torch.bfloat16,
        definitions=(f"BATCH={rows}",),
    )
    return y


def make(generator: torch.Generator, *, m: int, n: int, rows: int = 1, dtype: torch.dtype = torch.float16) -> Case:
    """A product with random values at two random places of every four."""
    fours = -(-n // 4)
    values = random_floats(generator, m, 2 * fours)
    # Two places in a nibble, the first below the second: what is stored, and what no two values share.
    pairs = torch.tensor(
        [0 | 1 << 2, 0 | 2 << 2, 0 | 3 << 2, 1 | 2 << 2, 1 | 3 << 2, 2 | 3 << 2], device=generator.device
    )
    nibbles = pairs[random_bytes(generator, m, fours + fours % 2).long() % 6].unflatten(1, (-1, 2))
    index = (nibbles[..., 0] | nibbles[..., 1] << 4).to(torch.uint8)
    x = random_floats(generator, rows, n, dtype=dtype)

    def run(x: Tensor, values: Tensor, index: Tensor, out: Tensor) -> Tensor:
        return two_of_four(x, values, index, out=out)

    def weight() -> tuple[Tensor, Tensor, Tensor]:
        dense = reference.two_of_four_weight(values, index, columns=n)
        return dense, dense.abs(), dense.abs()

    return product_case([x, values, index], x, m, run, weight)


BF16 = torch.bfloat16

register(
    Kernel(
        name="gemv 2:4",
        language="CUDA",
        formats="SemiStructured, 2:4, float16",
        make=make,
        checks=[
            {"m": 33, "n": 1024},
            {"m": 5, "n": 77, "rows": 3, "dtype": BF16},
            {"m": 9, "n": 8 * 67, "rows": 8},
            {"m": 1, "n": 1},
            {"m": 20, "n": 1999, "rows": 5, "dtype": BF16},
            {"m": 20, "n": 16 * 80, "rows": 2, "dtype": BF16},
        ],
        timed=LARGE,
        compared=("cuBLAS bf16",),
    )
)
