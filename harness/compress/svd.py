"""Low-rank factors of a weight matrix, plain or with a weight per input or output."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CLAMP = 1e-6
"""Smallest weight of an input or output, in units of the mean: a dead one has none, and it is divided out again."""


def rank_for_ratio(shape: tuple[int, int], ratio: float) -> int | None:
    """Rank r at which two factors of an (m, n) matrix hold `ratio` of its m*n numbers, or None where none saves any.

    r = floor(ratio * m * n / (m + n)); none at ratio 1, which is the matrix itself, and where not even one fits.
    """
    m, n = shape
    rank = math.floor(ratio * m * n / (m + n) + 1e-9)
    return rank if ratio < 1 and rank else None


def lowrank(
    weight: Tensor, rank: int, *, out_weight: Tensor | None = None, in_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A (m, rank) and B (rank, n) that minimise || diag(out)^1/2 (weight - A B) diag(in)^1/2 ||_F.

    `out_weight` (m,) and `in_weight` (n,) are non-negative importances, known up to a factor; None is uniform. The
    singular values are split evenly between the factors, which keeps both in the range of a 16-bit format. Solved by
    truncated SVD of the weighted matrix (Eckart-Young; paper key hsu2022fwsvd), in float64 because dividing the
    weights out again enlarges its rounding errors a thousandfold; the factors have the dtype of `weight`.
    """
    rows, columns = _root(out_weight, weight.shape[0], weight), _root(in_weight, weight.shape[1], weight)
    u, s, vt = torch.linalg.svd(rows[:, None] * weight.double() * columns, full_matrices=False)
    root = s[:rank].sqrt()
    return (u[:, :rank] * root / rows[:, None]).to(weight.dtype), (root[:, None] * vt[:rank] / columns).to(weight.dtype)


def _root(importance: Tensor | None, size: int, like: Tensor) -> Tensor:
    """Square root (size,) of the importances in units of their mean, clamped from below."""
    if importance is None or not importance.any():
        return torch.ones(size, dtype=torch.float64, device=like.device)
    importance = importance.to(like.device, torch.float64)
    return (importance / importance.mean()).clamp(min=CLAMP).sqrt()
