"""Truncated singular value decomposition, the best approximation of its rank (Eckart and Young, 1936)."""

from __future__ import annotations

from typing import Annotated

from harness import LayerProblem, LowRank, PackedWeight, Range, method
from harness.compress.svd import lowrank, rank_for_ratio

Ratio = Annotated[float, Range(0.01, 1.0)]
"""Numbers stored for a layer, as a part of those of its weight."""


@method(track="compress", paper="eckart1936approximation")
def svd(layer: LayerProblem, *, ratio: Ratio = 0.6) -> PackedWeight:
    """Each weight becomes the product of two thin matrices, by truncated SVD.

    The factors, m x r and r x n with r = floor(ratio * m * n / (m + n)), are stored in the checkpoint's dtype. A layer
    stays dense where no rank saves anything: at ratio 1, and where even r = 1 does not fit.
    """
    rank = rank_for_ratio(layer.weight.shape, ratio)
    if rank is None:
        return layer.dense()
    a, b = lowrank(layer.weight, rank)
    return LowRank(a.to(layer.dtype), b.to(layer.dtype))
