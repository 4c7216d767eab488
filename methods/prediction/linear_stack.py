"""Linear stacking (Wolpert 1992, Breiman 1996): regression of the target on the out-of-fold predictions."""

from __future__ import annotations

import numpy as np

from harness import BadInput, Predictor, PredictProblem, Weight, method


@method(track="predict", paper="breiman1996stacked", tune={"ridge": (0.0, 0.1, 1.0, 10.0, 100.0)})
def linear_stack(problem: PredictProblem, *, ridge: Weight = 1.0) -> Predictor:
    """Regression on the base predictions, with an intercept; `ridge` is the penalty on standardised columns.

    Without a penalty it is least squares. The default is that of scikit-learn's `Ridge`: where a suite tunes, it is the
    first of several that are tried.
    """
    if problem.levels:
        raise BadInput("linear_stack predicts the mean; it takes a problem with `bases: mean`")
    z = problem.train.base[:, :, 0]
    mean, scale, middle = z.mean(0), z.std(0) + 1e-12, problem.train.target.mean()
    x, y = (z - mean) / scale, problem.train.target - middle
    rows = np.concatenate([x, np.sqrt(ridge) * np.eye(x.shape[1])])
    weights = np.linalg.lstsq(rows, np.concatenate([y, np.zeros(x.shape[1])]), rcond=None)[0]
    return lambda features, base: (middle + (base[:, :, 0] - mean) / scale @ weights)[:, None]
