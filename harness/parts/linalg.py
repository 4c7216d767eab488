"""Functions of a matrix's singular values, by iterations of products alone, each with its twin by decomposition."""

from __future__ import annotations

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of Jordan et al. (2024): singular values come near 1 (0.7 to 1.2) in few steps and stay there."""


def newton_schulz(
    matrix: Tensor,
    *,
    steps: int = 5,
    coefficients: tuple[float, float, float] = QUINTIC,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """About U V^T of a matrix (m, n) = U S V^T: the steps X <- a X + (b A + c A^2) X with A = X X^T, from X / |X|_F.

    `dtype` is what the products are made in; the released optimizers use bfloat16.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(dtype)
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def polar(matrix: Tensor) -> Tensor:
    """U V^T, by the singular value decomposition; directions of a singular value of zero (but for rounding) are left
    out, so that it is a subgradient of the nuclear norm of any matrix."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    kept = (s > s[:1] * max(matrix.shape) * torch.finfo(s.dtype).eps).to(s.dtype)
    return (u * kept) @ v


def soft_spectral_clip(matrix: Tensor, limit: float, *, iterations: int = 10) -> Tensor:
    """Every singular value s becomes s / sqrt(1 + s^2 / limit^2), which is below the limit (Jiang et al. 2026).

    (I + X X^T / limit^2)^(-1/2) X, the root by the coupled Newton-Schulz iteration: 2.25^iterations must exceed the
    condition number of the matrix under the root, about s_max^2 / limit^2.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    gram = x @ x.T
    bound = torch.minimum(gram.abs().sum(1).max(), gram.norm())
    largest = 1 + bound / limit**2
    identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
    y, z = (identity + gram / limit**2) / largest, identity
    for _ in range(iterations):
        t = 1.5 * identity - 0.5 * (z @ y)
        y, z = y @ t, t @ z
    clipped = (z @ x) / largest.sqrt()
    return clipped.T if tall else clipped


def soft_spectral_clip_exact(matrix: Tensor, limit: float) -> Tensor:
    """`soft_spectral_clip` by the singular value decomposition."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return (u * (s / (1 + (s / limit) ** 2).sqrt())) @ v


def spectral_norm(matrix: Tensor) -> float:
    """The largest singular value."""
    return float(torch.linalg.matrix_norm(matrix.float(), 2))
