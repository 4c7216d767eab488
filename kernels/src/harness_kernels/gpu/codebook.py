"""Few rows of activations times vectors of outputs that are entries of a codebook, from their stored form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness_kernels import reference
from harness_kernels.gpu.launch import check, check_rows, launch
from harness_kernels.gpu.registry import LARGE, Case, Kernel, product_case, random_bytes, random_floats, register

MOST_ROWS, WARPS = 8, 8
SHARED = 96 << 10
"""Bytes of a codebook that is brought into shared memory; a larger one is read through the caches."""
VECTORS = (1, 2, 4, 6, 8, 12, 16)
"""Outputs that an entry may stand for."""


def codebook(
    x: Tensor,
    codes: Tensor,
    high: Tensor | None,
    book: Tensor,
    *,
    m: int,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """x (rows, n) times the transposed weight[v i + t, j] = book[index[i, j], t] * scale[j] + bias[j]: (rows, m).

    x is half precision or bfloat16, 1 to 8 rows; sums are float32. `book` (2**b, v) float16, b from 1 to 16; `codes`
    (ceil(m / v), ceil(n * min(b, 8) / 8)) uint8 are the low bits of the indices, `high` those above eight; `scale` and
    `bias` (n) float16: what `harness.packed.Codebook` stores. Raises ValueError for a wrong device, dtype, shape or
    stride.
    """
    check_rows(x, MOST_ROWS)
    check(x.device, book=(book, torch.float16, None))
    bits = len(book).bit_length() - 1
    if book.ndim != 2 or len(book) != 1 << bits or not 1 <= bits <= 16 or book.shape[1] not in VECTORS:
        raise ValueError(f"book: has shape {tuple(book.shape)}; accepted are 2 to 65536 vectors of {VECTORS} numbers")
    (rows, n), vector = x.shape, book.shape[1]
    vectors, low_bytes, high_bytes = -(-m // vector), -(-n * min(bits, 8) // 8), -(-n * max(bits - 8, 0) // 8)
    check(x.device, codes=(codes, torch.uint8, (vectors, low_bytes)))
    if (high is None) != (bits <= 8):
        raise ValueError(f"high: is {'not there' if high is None else 'there'}; indices have {bits} bits")
    if high is not None:
        check(x.device, high=(high, torch.uint8, (vectors, high_bytes)))
    y = x.new_empty(rows, m) if out is None else out
    check(x.device, out=(y, x.dtype, (rows, m)))
    activations, shift = _folded(x, n, scale, bias)
    in_shared = book.nbytes <= SHARED
    launch(
        "codebook.cu",
        "codebook",
        (-(-vectors // WARPS), 1),
        32 * WARPS,
        [activations, codes, high, book, shift, y, m, n, bits, low_bytes, high_bytes, int(in_shared)],
        shared=-(-book.nbytes // 16) * 16 if in_shared else 0,
        bfloat=x.dtype == torch.bfloat16,
        definitions=(f"VECTOR={vector}", f"BATCH={rows}"),
    )
    return y


def _folded(x: Tensor, n: int, scale: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Float32 activations times the columns' scales, and what the columns' biases add to every output of a row."""
    for name, value in (("scale", scale), ("bias", bias)):
        if value is not None:
            check(x.device, **{name: (value, torch.float16, (n,))})
    wide = x.float()
    shift = None if bias is None else (wide * bias.float()).sum(1)
    return (wide if scale is None else wide * scale.float()), shift


def make(
    generator: torch.Generator,
    *,
    m: int,
    n: int,
    bits: int = 8,
    vector: int = 8,
    norm: bool = False,
    rows: int = 1,
    dtype: torch.dtype = torch.float16,
) -> Case:
    """A product with random indices into a random book."""
    vectors, low = -(-m // vector), min(bits, 8)
    codes = random_bytes(generator, vectors, -(-n * low // 8))
    high = random_bytes(generator, vectors, -(-n * (bits - 8) // 8)) if bits > 8 else None
    book = random_floats(generator, 2**bits, vector)
    scale, bias = (random_floats(generator, n) if norm else None for _ in range(2))
    x = random_floats(generator, rows, n, dtype=dtype)

    def run(x: Tensor, codes: Tensor, high: Any, book: Tensor, scale: Any, bias: Any, out: Tensor) -> Tensor:
        return codebook(x, codes, high, book, m=m, scale=scale, bias=bias, out=out)

    def weight() -> tuple[Tensor, Tensor, Tensor]:
        index = reference.unpack(codes, low, n)
        if high is not None:
            index = index | reference.unpack(high, bits - 8, n) << 8
        values = book.double()[index].transpose(1, 2).flatten(0, 1)[:m]
        values = values * (1 if scale is None else scale.double())
        added = torch.zeros(n, dtype=torch.float64) if bias is None else bias.double()
        return values + added, values.abs() + added.abs(), (values + added).abs()

    return product_case([x, codes, high, book, scale, bias], x, m, run, weight)


BF16 = torch.bfloat16

register(
    Kernel(
        name="gemv codebook",
        language="CUDA",
        formats="Codebook",
        make=make,
        checks=[
            {"m": 33, "n": 300, "bits": 8, "vector": 8},
            {"m": 50, "n": 77, "bits": 3, "vector": 4, "norm": True, "rows": 3, "dtype": BF16},
            {"m": 17, "n": 513, "bits": 12, "vector": 6, "rows": 2},
            {"m": 1, "n": 1, "bits": 1, "vector": 1},
            {"m": 100, "n": 999, "bits": 16, "vector": 8, "norm": True, "rows": 8, "dtype": BF16},
            {"m": 70, "n": 640, "bits": 5, "vector": 16, "rows": 5},
            {"m": 70, "n": 640, "bits": 8, "vector": 2, "rows": 4, "norm": True},
        ],
        timed={
            **{f"{label}, 8 bits": shape for label, shape in LARGE.items()},
            **{f"{label}, 12 bits": {**shape, "bits": 12} for label, shape in LARGE.items()},
        },
        compared=("cuBLAS bf16",),
    )
)
