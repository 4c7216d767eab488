"""Vector quantization: codebooks learned by exponential moving averages, and the nearest code."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest_codes(vectors: Tensor, codes: Tensor) -> Tensor:
    """(C, N, d), (C, K, d) -> (C, N): the place of the code nearest to each vector, in each of C codebooks."""
    products = vectors @ codes.mT
    return (codes.square().sum(-1)[:, None] - 2 * products).argmin(-1)


def ema_codebooks(
    vectors: Tensor,
    size: int,
    generator: torch.Generator,
    *,
    passes: int = 5,
    batch: int = 256,
    decay: float = 0.9,
    expire: float = 1e-2,
) -> Tensor:
    """(C, N, d) -> (C, size, d): codebooks of vectors, each learned on its own.

    The codes start at vectors drawn at random. For each batch, N_k <- decay N_k + (1 - decay) count and M_k likewise of
    the sums, and the code is M_k / N_k (van den Oord et al. 2017, appendix A.1). After each pass, a code whose N_k has
    fallen below `expire` takes the place of a vector drawn at random.
    """
    books, count, width = vectors.shape
    codes = vectors[:, _draws(count, size, generator)].clone()
    totals, weights = codes.clone(), torch.ones(books, size)
    for _ in range(passes):
        for rows in torch.randperm(count, generator=generator).split(batch):
            part = vectors[:, rows]
            nearest = nearest_codes(part, codes)
            counts = torch.zeros(books, size).scatter_add_(1, nearest, torch.ones_like(nearest, dtype=torch.float))
            sums = torch.zeros(books, size, width).scatter_add_(1, nearest[..., None].expand_as(part), part)
            weights = decay * weights + (1 - decay) * counts
            totals = decay * totals + (1 - decay) * sums
            used = weights > expire
            codes = torch.where(used[..., None], totals / weights[..., None].clamp(min=1e-30), codes)
        book, place = (weights <= expire).nonzero(as_tuple=True)
        if len(book):
            codes[book, place] = vectors[book, _draws(count, len(book), generator)]
            totals[book, place], weights[book, place] = codes[book, place], 1.0
    return codes


def _draws(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Places drawn at random, without repetition as far as there are enough."""
    if wanted <= count:
        return torch.randperm(count, generator=generator)[:wanted]
    return torch.randint(count, (wanted,), generator=generator)
