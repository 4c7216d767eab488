"""Base predictors and their out-of-fold predictions: what stacking and quantile aggregation learn from.

A row is predicted by models that did not see it: in each of the folds, every base is fitted on the other folds. The
bases are scikit-learn's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Levels = tuple[float, ...]
Base = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(features, target, features to predict) -> predictions (rows, levels); one level for a prediction of the mean."""


def out_of_fold(bases: Sequence[Base], x: np.ndarray, y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Predictions (rows, bases, levels) of every row by bases fitted without its fold. `folds` (rows,) numbers them."""
    found = None
    for fold in np.unique(folds):
        inside, outside = folds == fold, folds != fold
        part = predictions(bases, x[outside], y[outside], x[inside])
        found = np.empty((len(y), *part.shape[1:])) if found is None else found
        found[inside] = part
    assert found is not None
    return found


def predictions(bases: Sequence[Base], x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Predictions (rows of `new`, bases, levels) of bases fitted on all of (x, y)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence: a weak base is a base
        return np.stack([base(x, y, new) for base in bases], axis=1)


def mean_bases(seed: int) -> dict[str, Base]:
    """25 predictors of the mean, by name: ridge, neighbours, trees, forests and boosting, each of several strengths."""
    from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.tree import DecisionTreeRegressor

    models: dict[str, Any] = {}
    models |= {f"ridge({a:g})": Ridge(alpha=a) for a in (0.01, 1.0, 10.0, 100.0, 1000.0)}
    models |= {f"knn({k})": KNeighborsRegressor(k) for k in (3, 5, 10, 15, 20)}
    models |= {f"tree({d})": DecisionTreeRegressor(max_depth=d, random_state=seed) for d in (2, 3, 4, 6, 10)}
    forests = {"forest": RandomForestRegressor, "extra": ExtraTreesRegressor}
    for name, forest in forests.items():
        models |= {f"{name}({d})": forest(20, max_depth=d, random_state=seed, n_jobs=1) for d in (3, 6, 10)}
    models |= {
        f"boost({d})": HistGradientBoostingRegressor(max_iter=30, max_depth=d, random_state=seed) for d in (1, 2, 3, 4)
    }
    return {name: _mean(model) for name, model in models.items()}


def quantile_bases(levels: Levels, seed: int) -> dict[str, Base]:
    """Six predictors of quantiles, by name: linear, boosted, neighbours' (two), the whole sample's, and noise."""
    from sklearn.neighbors import NearestNeighbors

    def neighbours(k: int) -> Base:
        def predict(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
            scale = x.std(0) + 1e-12
            near = NearestNeighbors(n_neighbors=min(k, len(x))).fit(x / scale).kneighbors(new / scale)[1]
            return np.quantile(y[near], levels, axis=1).T

        return predict

    def marginal(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        return np.tile(np.quantile(y, levels), (len(new), 1))

    def noise(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return np.sort(rng.normal(y.mean(), y.std(), (len(new), len(levels))), axis=1)

    return {
        "linear": _linear_quantiles(levels),
        "boost": _boosted_quantiles(levels, seed),
        "knn(15)": neighbours(15),
        "knn(40)": neighbours(40),
        "marginal": marginal,
        "noise": noise,
    }


def _mean(model: Any) -> Base:
    from sklearn.base import clone
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def predict(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        return make_pipeline(StandardScaler(), clone(model)).fit(x, y).predict(new)[:, None]

    return predict


def _linear_quantiles(levels: Levels) -> Base:
    from sklearn.linear_model import QuantileRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def predict(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                make_pipeline(StandardScaler(), QuantileRegressor(quantile=level, alpha=1e-3)).fit(x, y).predict(new)
                for level in levels
            ],
            axis=1,
        )

    return predict


def _boosted_quantiles(levels: Levels, seed: int) -> Base:
    from sklearn.ensemble import HistGradientBoostingRegressor

    def predict(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                HistGradientBoostingRegressor(
                    loss="quantile", quantile=level, max_iter=40, max_depth=3, min_samples_leaf=10, random_state=seed
                )
                .fit(x, y)
                .predict(new)
                for level in levels
            ],
            axis=1,
        )

    return predict
