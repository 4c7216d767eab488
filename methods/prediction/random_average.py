"""The null control of the predict track: a weighted average whose weights are drawn at random."""

from __future__ import annotations

import numpy as np
import torch

from harness import Predictor, PredictProblem, method


@method(track="predict", role="control")
def random_average(problem: PredictProblem) -> Predictor:
    """A convex combination of the bases with weights uniform on the simplex: learns nothing."""
    drawn = -torch.rand(len(problem.names), generator=problem.generator, dtype=torch.float64).log()
    weights = (drawn / drawn.sum()).numpy()
    return lambda features, base: np.einsum("k,nkl->nl", weights, base)
