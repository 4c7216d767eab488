"""The uniform average of the base predictions, the baseline of the predict track."""

from __future__ import annotations

import numpy as np

from harness import Predictor, PredictProblem, method


@method(track="predict")
def average(problem: PredictProblem) -> Predictor:
    """The mean of what the bases predict, at every level."""
    return lambda features, base: np.asarray(base).mean(axis=1)
