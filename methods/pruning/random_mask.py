"""The null control of pruning: as many weights, chosen by chance."""

from __future__ import annotations

import torch

from harness import Fraction, LayerProblem, PackedWeight, method
from methods.pruning.masks import Pattern, prune


@method(track="compress", role="control")
def random_mask(layer: LayerProblem, *, sparsity: Fraction = 0.5, pattern: Pattern = "unstructured") -> PackedWeight:
    """Weights chosen at random become zero: the null control of pruning.

    Exactly round(sparsity * m * n) weights of each layer go, drawn from the layer's generator. Raises BadInput as
    `magnitude` does.
    """
    if sparsity == 0:
        return layer.dense()
    score = torch.rand(layer.weight.shape, generator=layer.generator, device=layer.generator.device)
    return prune(layer, score.to(layer.weight.device), sparsity=sparsity, pattern=pattern, unit="layer")
