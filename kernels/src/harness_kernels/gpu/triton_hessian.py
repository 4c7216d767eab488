"""Triton source of `harness_kernels.gpu.hessian`. Importing it needs Triton, and no driver."""

import triton
import triton.language as tl

from harness_kernels.gpu.triton_gemm import dot


@triton.jit
def accumulate(h, x, rows, n, keep, factor, block: tl.constexpr, block_rows: tl.constexpr, interpreted: tl.constexpr):
    """h (n, n) = keep h + factor x^T x, x (rows, n): tiles on and above the diagonal, each written to both sides."""
    tile_i, tile_j = tl.program_id(0), tl.program_id(1)
    if tile_j >= tile_i:
        i = tile_i * block + tl.arange(0, block)
        j = tile_j * block + tl.arange(0, block)
        sums = tl.zeros((block, block), tl.float32)
        for first in range(0, rows, block_rows):
            row = (first + tl.arange(0, block_rows)).to(tl.int64)
            inside = (row < rows)[:, None]
            left = tl.load(x + row[:, None] * n + i[None, :], mask=inside & (i < n)[None, :], other=0)
            right = tl.load(x + row[:, None] * n + j[None, :], mask=inside & (j < n)[None, :], other=0)
            sums = dot(tl.trans(left), right, sums, interpreted)
        inside = (i < n)[:, None] & (j < n)[None, :]
        upper = h + i.to(tl.int64)[:, None] * n + j[None, :]
        # Nothing is read where nothing is kept, so that a matrix that was never written may be given.
        before = tl.load(upper, mask=inside & (keep != 0), other=0)
        total = keep * before + factor * sums
        tl.store(upper, total, mask=inside)
        if tile_i != tile_j:
            lower = h + j.to(tl.int64)[:, None] * n + i[None, :]
            tl.store(lower, tl.trans(total), mask=tl.trans(inside))
