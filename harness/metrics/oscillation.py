"""How often the codes of quantized weights turned back while they trained."""

from __future__ import annotations

import numpy as np

from harness.errors import BadInput
from harness.metrics.subject import Subject
from harness.registry import metric
from harness.scores import Scores

VERSION = 2


@metric(paper="liu2023oscillation", bounds=(0, 1))
def oscillation(subject: Subject) -> Scores:
    """Of a layer's weights and the last steps, the part in which a code changed against its last change: the mean over
    the layers. One number a model; `extra` has each layer's.

    Raises BadInput for a method that does not train codes.
    """
    rates = subject.extra.get("oscillation")
    if not rates:
        raise BadInput("metric oscillation is for methods that train quantized weights; this one gave no rates")
    return Scores(
        ids=["layers"],
        values=np.array([np.mean(list(rates.values()))]),
        signature=f"oscillation|layers:{len(rates)}|v:{VERSION}",
        unit="part of weights a step",
        higher_is_better=False,
        extra=dict(rates),
    )
