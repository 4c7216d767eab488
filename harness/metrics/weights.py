"""How large the weights of a model are."""

from __future__ import annotations

from typing import Literal

import numpy as np

from harness.metrics.subject import Subject
from harness.registry import metric
from harness.scores import Scores

VERSION = 2


@metric(bounds=(0, np.inf))
def weight_norm(subject: Subject, *, norm: Literal["spectral", "max"] = "spectral") -> Scores:
    """The norm of a weight, its largest singular value or its largest entry: the mean over the layers of the body.

    One number a model, since its layers are all there are and no sample of any; `extra` has each of them. A convolution
    is a matrix (outputs, inputs x kernel).
    """
    import torch

    from harness.models.inside import body_layers, weight_of
    from harness.parts.linalg import spectral_norm

    layers = body_layers(subject.model)
    with torch.no_grad():
        weights = [weight_of(subject.model, name).flatten(1) for name in layers]
        values = [spectral_norm(one) if norm == "spectral" else float(one.abs().max()) for one in weights]
    return Scores(
        ids=["layers"],
        values=np.array([np.mean(values)]),
        signature=f"weight_norm|{norm}|layers:{len(layers)}|v:{VERSION}",
        unit="norm",
        higher_is_better=False,
        extra=dict(zip(layers, values, strict=True)),
    )
