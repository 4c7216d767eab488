"""Grids whose levels are sums of a few factors of each group: bit planes, trit planes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Refit = Callable[[Tensor, Tensor], Tensor]
"""`refit(gram, moment)`: the factors (..., K) of groups from A^T A (..., K, K) and A^T w (..., K), in float64."""


def nearest(weight: Tensor, levels: Tensor) -> Tensor:
    """The number of the nearest of a group's levels (..., L) for each of its weights (..., g); of equals the first."""
    best = (weight - levels[..., :1]).abs()
    codes = torch.zeros(weight.shape, dtype=torch.uint8, device=weight.device)
    for code in range(1, levels.shape[-1]):
        distance = (weight - levels[..., code : code + 1]).abs()
        codes[distance < best] = code
        best = torch.minimum(best, distance)
    return codes


def alternate(
    weight: Tensor, patterns: Tensor, factors: Tensor, refit: Refit, *, iterations: int, tolerance: float = 0.0
) -> Tensor:
    """Factors (..., K) of groups of weights (..., g), of which level l is patterns[l] times the factors.

    In turns every weight goes to the nearest level and the factors to the least squares for these choices, so that the
    error does not rise. Ends after so many `iterations`, or when no group's factors move by more than `tolerance` of
    their length. `patterns` is (L, K), `factors` where to start.
    """
    patterns = patterns.to(weight.dtype)
    for _ in range(iterations):
        codes = nearest(weight, factors @ patterns.T)
        chosen = [codes == code for code in range(len(patterns))]
        counts = torch.stack([mask.sum(-1) for mask in chosen], -1).double()
        sums = torch.stack([torch.where(mask, weight, 0).sum(-1) for mask in chosen], -1).double()
        rows = patterns.double()
        gram = torch.einsum("...l,lk,lj->...kj", counts, rows, rows)
        before, factors = factors, refit(gram, sums @ rows).to(weight.dtype)
        if bool(((factors - before).norm(dim=-1) <= tolerance * before.norm(dim=-1)).all()):
            break
    return factors
