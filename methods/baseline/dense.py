"""The uncompressed model."""

from __future__ import annotations

from harness import LayerProblem, PackedWeight, method


@method(track="compress", role="reference")
def dense(layer: LayerProblem) -> PackedWeight:
    """The weight as the checkpoint stores it: what every compressed model is measured against."""
    return layer.dense()
