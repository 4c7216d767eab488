"""Which weights stay, given a score for each: what the pruning methods share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from harness import BadInput, LayerProblem, PackedWeight, SemiStructured, Sparse

Pattern = Literal["unstructured", "2:4", "4:8"]
Unit = Literal["layer", "row"]


def prune(layer: LayerProblem, score: Tensor, *, sparsity: float, pattern: Pattern, unit: Unit) -> PackedWeight:
    """The layer without its lowest-scored weights, in the checkpoint's dtype.

    `score` is (m, n). Unstructured: round(sparsity * size) weights go from each `unit` (the whole layer, or each row).
    N:M: the N highest scores of every M consecutive inputs stay. The earlier of two equal scores goes first. Raises
    BadInput for a pattern that the sparsity or the layer's width does not fit.
    """
    m, n = layer.weight.shape
    if pattern == "unstructured":
        keep = keep_highest(score if unit == "row" else score.reshape(1, -1), sparsity).view(m, n)
        return Sparse.pack(layer.weight, keep, dtype=layer.dtype)
    kept, of = map(int, pattern.split(":"))
    if sparsity != 1 - kept / of:
        raise BadInput(f"layer {layer.name}: pattern={pattern} is sparsity=0.5, not {sparsity}; give that, or 0")
    if n % of:
        raise BadInput(f"layer {layer.name} has {n} inputs; pattern={pattern} needs a multiple of {of}")
    keep = keep_highest(score.reshape(-1, of), 1 - kept / of).view(m, n)
    if pattern == "2:4":
        return SemiStructured.pack(layer.weight, keep, dtype=layer.dtype)
    return Sparse.pack(layer.weight, keep, dtype=layer.dtype)


def keep_highest(score: Tensor, sparsity: float) -> Tensor:
    """Boolean mask (units, size) that drops exactly round(sparsity * size) of the lowest scores of each unit."""
    dropped = round(sparsity * score.shape[1])
    order = score.argsort(dim=1, stable=True)
    return torch.ones_like(score, dtype=torch.bool).scatter_(1, order[:, :dropped], False)
