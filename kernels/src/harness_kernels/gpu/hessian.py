"""The second moments that GPTQ accumulates, from half-precision rows, in one pass (Triton)."""

from __future__ import annotations

import torch
from torch import Tensor

from harness_kernels.gpu.launch import check, check_rows, interpreted, need_triton
from harness_kernels.gpu.registry import SUMS, Case, Kernel, random_floats, register

BLOCK, BLOCK_ROWS = 128, 64


def accumulate(hessian: Tensor, x: Tensor, *, keep: float = 1.0, factor: float = 1.0) -> Tensor:
    """hessian = keep * hessian + factor * x^T x, in place; x (rows, n) half precision or bfloat16, sums in float32.

    `hessian` (n, n) float32 is symmetric before and after: tiles above the diagonal are computed and written to both
    sides. With keep 0 what it held does not matter. GPTQ's running mean over `seen` rows: keep = seen / (seen + rows),
    factor = 2 / (seen + rows). Raises ValueError for a wrong device, dtype, shape or stride, and RuntimeError without
    Triton.
    """
    check_rows(x)
    rows, n = x.shape
    check(x.device, hessian=(hessian, torch.float32, (n, n)))
    tiles = -(-n // BLOCK)
    source = need_triton("hessian")
    settings = {"block": BLOCK, "block_rows": BLOCK_ROWS, "interpreted": interpreted(), "num_warps": 8}
    source.accumulate[(tiles, tiles)](hessian, x, rows, n, float(keep), float(factor), **settings)
    return hessian


def make(
    generator: torch.Generator, *, rows: int, n: int, keep: float = 0.0, dtype: torch.dtype = torch.float16
) -> Case:
    """An accumulation onto a random symmetric matrix; with keep 0 onto NaNs."""
    x = random_floats(generator, rows, n, dtype=dtype)
    before = torch.randn(n, n, generator=generator, device=generator.device)
    before = before + before.T
    factor = 2 / max(rows, 1)

    def run(x: Tensor, before: Tensor, out: Tensor) -> Tensor:
        if keep:
            out.copy_(before)
        return accumulate(out, x, keep=keep, factor=factor)

    def exact() -> tuple[Tensor, Tensor]:
        wide = x.double()
        total = keep * before.double() + factor * wide.T @ wide
        return total, SUMS * (keep * before.double().abs() + factor * wide.abs().T @ wide.abs()) + 1e-30

    moved = x.nbytes + before.nbytes * (2 if keep else 1)
    return Case([x, before], torch.empty_like(before), run, exact, moved, rows * n * (n + 1))


register(
    Kernel(
        name="hessian",
        language="Triton",
        formats="rows of activations",
        make=make,
        checks=[
            {"rows": 70, "n": 150},
            {"rows": 1, "n": 7, "keep": 0.5, "dtype": torch.bfloat16},
            {"rows": 200, "n": 129, "keep": 0.75, "dtype": torch.bfloat16},
            {"rows": 65, "n": 260, "keep": 1.0},
        ],
        timed={"16384 rows of 8192": {"rows": 16384, "n": 8192, "dtype": torch.bfloat16}},
    )
)
