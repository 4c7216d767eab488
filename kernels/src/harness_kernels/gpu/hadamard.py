"""Fast Walsh-Hadamard transform of rows: the rotation of QuaRot, Q-Palette and others."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from harness_kernels.gpu.launch import FLOATS, check, launch
from harness_kernels.gpu.registry import Case, Kernel, half_ulp, random_floats, register

LEAST, MOST = 4, 15
"""Powers of two that a row can have: a block holds the row, in float32."""
FACTORS = {1: 0, 12: 11, 20: 19}
"""Sizes of the matrices that a power of two may be multiplied by; beside each the prime of Paley's construction."""


def hadamard(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Each row of x (rows, n) times the orthonormal Hadamard matrix H_f (x) H_{2^k}, n = f 2^k, in x's dtype.

    f is 1, 12 or 20, k from 4 to 15; x is half precision or bfloat16, sums are float32. H_{2^k} is Sylvester's, H_f
    Paley's: see `matrix`. A factor of 12 or 20 is a second pass, a matrix product. Raises ValueError for a wrong
    device, dtype, shape or stride.
    """
    check(x=(x, FLOATS, None))
    if x.ndim != 2 or split(x.shape[1]) is None:
        sizes = f"powers of two from {1 << LEAST} to {1 << MOST}, and 12 or 20 times them"
        raise ValueError(f"x: has shape {tuple(x.shape)}; accepted are rows of {sizes}")
    rows, n = x.shape
    factor, log = split(x.shape[1]) or (1, 0)
    y = torch.empty_like(x) if out is None else out
    check(x.device, out=(y, x.dtype, (rows, n)))
    size = 1 << log
    stage = y if factor == 1 else torch.empty_like(x)
    launch(
        "hadamard.cu",
        "hadamard",
        (rows * factor, 1),
        size // 16,
        [x, stage, 1 / math.sqrt(size)],
        shared=4 * (size + size // 16),
        bfloat=x.dtype == torch.bfloat16,
        definitions=(f"LOG={log}",),
    )
    if factor > 1:
        mix = (matrix(factor) / math.sqrt(factor)).to(x)
        torch.matmul(mix.T, stage.view(rows, factor, size), out=y.view(rows, factor, size))
    return y


def split(n: int) -> tuple[int, int] | None:
    """(f, k) with n = f 2^k that `hadamard` has, or None."""
    for factor in FACTORS:
        size = n // factor
        if n % factor == 0 and size & (size - 1) == 0 and 1 << LEAST <= size <= 1 << MOST:
            return factor, size.bit_length() - 1
    return None


def reference(x: Tensor) -> Tensor:
    """What `hadamard` computes, stage by stage in the dtype of x, on any device; x (..., n), any n of `split`."""
    factor, log = split(x.shape[-1]) or (1, x.shape[-1].bit_length() - 1)
    y = x.unflatten(-1, (factor, 1 << log))
    for bit in range(log):
        pairs = y.unflatten(-1, (-1, 2, 1 << bit))
        y = torch.stack([pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]], -2).flatten(-3)
    return (matrix(factor).to(y).T @ y).flatten(-2) / math.sqrt(x.shape[-1])


@functools.cache
def matrix(size: int) -> Tensor:
    """A Hadamard matrix of 1, 12 or 20 rows, float64: Paley's first construction from the squares modulo a prime."""
    prime = FACTORS[size]
    if not prime:
        return torch.ones(1, 1, dtype=torch.float64)
    squares = {i * i % prime for i in range(1, prime)}
    skew = torch.zeros(size, size, dtype=torch.float64)
    skew[0, 1:], skew[1:, 0] = 1, -1
    for i in range(prime):
        for j in range(prime):
            if i != j:
                skew[i + 1, j + 1] = 1 if (i - j) % prime in squares else -1
    return skew + torch.eye(size, dtype=torch.float64)


def make(generator: torch.Generator, *, rows: int, n: int, dtype: torch.dtype = torch.float16) -> Case:
    """A transform of random rows."""
    x = random_floats(generator, rows, n, dtype=dtype)
    factor, log = split(n) or (1, 0)

    def run(x: Tensor, out: Tensor) -> Tensor:
        return hadamard(x, out=out)

    def exact() -> tuple[Tensor, Tensor]:
        y = reference(x.double())
        allowed = half_ulp(y, dtype) + 2.0**-20 * x.double().norm(dim=1, keepdim=True)
        if factor > 1:
            # The numbers between the two passes are rounded, and so are the entries of the small matrix.
            allowed = allowed + 3 * torch.finfo(dtype).eps * x.double().norm(dim=1, keepdim=True)
        return y, allowed

    return Case([x], torch.empty_like(x), run, exact, 2 * x.nbytes, rows * n * (log + factor - 1))


register(
    Kernel(
        name="hadamard",
        language="CUDA",
        formats="rows of activations or weights",
        make=make,
        checks=[
            {"rows": 3, "n": 64},
            {"rows": 5, "n": 16, "dtype": torch.bfloat16},
            {"rows": 2, "n": 1024, "dtype": torch.bfloat16},
            {"rows": 3, "n": 12 * 32},
            {"rows": 3, "n": 20 * 16, "dtype": torch.bfloat16},
            {"rows": 2, "n": 2048},
            {"rows": 1, "n": 8192},
            {"rows": 2, "n": 32768, "dtype": torch.bfloat16},
        ],
        timed={
            "16384 rows of 4096": {"rows": 16384, "n": 4096, "dtype": torch.bfloat16},
            "8192 rows of 8192": {"rows": 8192, "n": 8192, "dtype": torch.bfloat16},
        },
    )
)
