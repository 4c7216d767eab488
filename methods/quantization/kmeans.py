"""k-means in which some vectors count more than others."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2**20
"""Distances that are computed at a time, so that memory does not grow with the number of vectors."""


def nearest(vectors: Tensor, centers: Tensor) -> Tensor:
    """For each of the vectors (N, d) the place of the nearest of the centers (k, d), the first of equals: (N,)."""
    # Half the squared distance, less what is the same for all centers.
    halves = centers.square().sum(1) / 2
    parts = vectors.split(max(1, CHUNK // len(centers)))
    return torch.cat([torch.addmm(halves, part, centers.T, alpha=-1).min(1).indices for part in parts])


def weighted_kmeans(
    vectors: Tensor,
    weights: Tensor,
    k: int,
    generator: torch.Generator,
    *,
    iterations: int = 100,
    tolerance: float = 1e-5,
) -> tuple[Tensor, list[float]]:
    """Centers (k, d) that lower sum_i weights[i] |vectors[i] - its nearest center|^2, and that error at each iteration.

    Lloyd's iteration from k of the vectors (N, d), N >= k, drawn at random. The error does not rise; the iteration ends
    when it falls by no more than `tolerance` of itself. A center that no vector of positive weight is nearest to moves
    to one of the vectors that add most to the error. Means are taken in double precision.
    """
    drawn = torch.randperm(len(vectors), generator=generator, device=generator.device)[:k]
    centers, weights = vectors[drawn.to(vectors.device)], weights.double()
    errors: list[float] = []
    for _ in range(iterations):
        codes = nearest(vectors, centers)
        error = weights * (vectors - centers[codes]).square().sum(1)
        errors.append(float(error.sum()))
        mass = torch.bincount(codes, weights, minlength=k)
        sums = torch.stack([torch.bincount(codes, weights * column, minlength=k) for column in vectors.T], 1)
        empty = (mass == 0).nonzero()[:, 0]
        centers = (sums / mass[:, None]).to(vectors.dtype)
        centers[empty] = vectors[error.topk(len(empty)).indices]
        settled = not len(empty) and len(errors) > 1 and errors[-2] - errors[-1] <= tolerance * errors[-2]
        if settled or not errors[-1]:
            break
    return centers, errors
