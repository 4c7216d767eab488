"""One-shot magnitude pruning, after "Learning both Weights and Connections for Efficient Neural Networks" (2015)."""

from __future__ import annotations

from harness import Fraction, LayerProblem, PackedWeight, method
from methods.pruning.masks import Pattern, prune


@method(track="compress", paper="han2015learning")
def magnitude(layer: LayerProblem, *, sparsity: Fraction = 0.5, pattern: Pattern = "unstructured") -> PackedWeight:
    """The smallest weights of each layer become zero.

    Section 3.1's connections "with weights below a threshold", the threshold chosen so that exactly
    round(sparsity * m * n) of a layer's weights go. One-shot: the paper's retraining between rounds is left out.
    Reads no calibration data. Raises BadInput where `pattern` fits neither the sparsity nor the layer's width.
    """
    if sparsity == 0:
        return layer.dense()
    return prune(layer, layer.weight.abs(), sparsity=sparsity, pattern=pattern, unit="layer")
