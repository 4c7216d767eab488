"""Regularized meta-learning for improved generalization (2026): a stack that first drops what it has twice.

The paper gives the steps and the threshold on correlations; how the two tests of redundancy combine, the interactions,
the grids and the folds are our reading.
"""

from __future__ import annotations

import warnings
from itertools import combinations
from typing import Any

import numpy as np

from harness import BadInput, Claim, Count, Fraction, Predictor, PredictProblem, Weight, method

ALPHAS = np.logspace(-3, 3, 25)


@method(
    track="predict",
    paper="mohammad2026regularized",
    claims=[
        Claim(
            metric="squared_error",
            than="linear_stack(ridge=0.0)",
            suite="predict-stack",
            paper="Playground S6E1 (100,000 rows, 72 models): RMSE 8.582, ridge stack 8.627, mean of the models 8.894",
        )
    ],
    tune={"correlation": (0.9, 0.95, 0.98)},
)
def reg_meta(
    problem: PredictProblem,
    *,
    correlation: Fraction = 0.95,
    distance: Weight = 1e-3,
    interactions: Count = 3,
    folds: Count = 5,
) -> Predictor:
    """Base predictors without near-duplicates, with statistics of each row, in a blend of three penalised regressions.

    A base is kept if no better one that is kept correlates with it by more than `correlation` or is nearer than
    `distance` times the target's variance, in mean square. The blend weighs ridge, lasso and elastic net by the inverse
    of their cross-validated error.
    """
    if problem.levels:
        raise BadInput("reg_meta predicts the mean; it takes a problem with `bases: mean`")
    z, y = problem.train.base[:, :, 0], problem.train.target
    kept = distinct(z, y, correlation, distance * y.var())
    raw = _columns(z, kept, interactions)
    mean, scale = raw.mean(0), raw.std(0) + 1e-12
    models, errors = _regressions((raw - mean) / scale, y, folds)
    weights = (1 / errors) / (1 / errors).sum()

    def predict(features: np.ndarray, base: np.ndarray) -> np.ndarray:
        x = (_columns(base[:, :, 0], kept, interactions) - mean) / scale
        return sum(weight * model.predict(x) for weight, model in zip(weights, models, strict=True))[:, None]

    return predict


def distinct(z: np.ndarray, y: np.ndarray, correlation: float, distance: float) -> list[int]:
    """Columns of z (n, M), best first by error, that no better kept one makes redundant by either test (step 1)."""
    order = np.argsort(((z - y[:, None]) ** 2).mean(0), kind="stable")
    with np.errstate(invalid="ignore"):
        related = np.nan_to_num(np.corrcoef(z, rowvar=False).reshape(z.shape[1], z.shape[1]), nan=1.0)
    kept: list[int] = []
    for j in order:
        apart = [((z[:, j] - z[:, k]) ** 2).mean() for k in kept]
        if all(related[j, k] <= correlation and far >= distance for k, far in zip(kept, apart, strict=True)):
            kept.append(int(j))
    return kept


def _columns(z: np.ndarray, kept: list[int], interactions: int) -> np.ndarray:
    """Kept predictions, statistics over all of a row's, products and differences of the best few (step 2)."""
    low, high = z.min(1), z.max(1)
    statistics = [z.mean(1), np.median(z, axis=1), z.std(1), low, high, high - low]
    pairs = list(combinations(kept[:interactions], 2))
    crossed = [part for a, b in pairs for part in (z[:, a] * z[:, b], z[:, a] - z[:, b])]
    return np.column_stack([z[:, kept], *statistics, *crossed])


def _regressions(x: np.ndarray, y: np.ndarray, folds: int) -> tuple[list[Any], np.ndarray]:
    """Ridge, lasso and elastic net, the penalty of each chosen by cross-validation, and their errors there (step 3)."""
    from sklearn.linear_model import ElasticNetCV, LassoCV, RidgeCV

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a path that has not converged at its weakest penalty is not chosen
        ridge = RidgeCV(ALPHAS, cv=folds, scoring="neg_mean_squared_error").fit(x, y)
        lasso = LassoCV(cv=folds, alphas=50, random_state=0).fit(x, y)
        net = ElasticNetCV(l1_ratio=[0.2, 0.5, 0.8], cv=folds, alphas=50, random_state=0).fit(x, y)
    errors = [-ridge.best_score_, lasso.mse_path_.mean(-1).min(), net.mse_path_.mean(-1).min()]
    return [ridge, lasso, net], np.sqrt(np.maximum(errors, 1e-24))
