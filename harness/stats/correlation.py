"""Correlations as means: the influence of every item turns a rank correlation into something that can be resampled.

A correlation is close to itself plus the mean of its items' influences (the infinitesimal jackknife,
efron1982jackknife), ties and re-ranking included. So correlations share the draw, the variance, the tests and the
verdicts of means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import scipy  # its parts are loaded where they are first used

from harness.errors import BadInput
from harness.stats.resample import Units, units
from harness.stats.scoreset import ScoreSet

Kind = Literal["spearman", "pearson", "kendall"]


def influence(x: np.ndarray, y: np.ndarray, kind: Kind) -> tuple[float, np.ndarray]:
    """(correlation, influence of every item (N,), averaging to zero). nan where x or y is constant."""
    return _INFLUENCE[kind](np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))


def linear_units(scores: ScoreSet) -> Units:
    """Units whose mean is the mean over seeds of the correlation with the targets, and vary as it does."""
    assert scores.targets is not None
    kind: Kind = "spearman" if scores.summary == "spearman" else "pearson"
    rows = []
    for seed, row in zip(scores.seeds, scores.values, strict=True):
        value, parts = influence(row, scores.targets, kind)
        if not np.isfinite(value):
            raise BadInput(f"seed {seed}: all scores or all targets are equal; their correlation is not defined")
        rows.append(value + parts)
    return units(np.stack(rows), None, scores.blocks)


def fisher_z(one: Units) -> Units | None:
    """The same units for the inverse hyperbolic tangent of the correlation, whose distribution is nearly normal
    (fisher1921probable). None at +-1, which has no such transform."""
    value = one.estimate
    if abs(value) > 1 - 1e-12:
        return None
    sums = np.arctanh(value) * one.weights + (one.sums - value * one.weights) / (1 - value**2)
    return Units(sums, one.weights)


def _pearson(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan"), np.zeros(len(x))
    zx, zy = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    r = float((zx * zy).mean())
    return r, zx * zy - r / 2 * (zx**2 + zy**2)


def _spearman(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Pearson's correlation of the ranks, and what each item adds by shifting the ranks of the items above it."""
    rx, ry = scipy.stats.rankdata(x), scipy.stats.rankdata(y)
    r, direct = _pearson(rx, ry)
    if not np.isfinite(r):
        return r, direct
    zx, zy = (rx - rx.mean()) / rx.std(), (ry - ry.mean()) / ry.std()
    moved = _sum_above(x, zy - r * zx) / rx.std() + _sum_above(y, zx - r * zy) / ry.std()
    return r, direct + moved - moved.mean()


def _sum_above(x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For every item the sum of `values` over the items with a greater x, and half of it over those with the same."""
    level = np.unique(x, return_inverse=True)[1]
    by_level = np.bincount(level, values)
    above = by_level.sum() - np.cumsum(by_level) + by_level / 2
    return above[level]


def _kendall(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Kendall's tau-b: concordance over the geometric mean of the untied pairs of x and of y."""
    agree, untied_x, untied_y = np.empty((3, len(x)))
    for i in range(len(x)):  # a row of pairs at a time bounds the memory
        sx, sy = np.sign(x - x[i]), np.sign(y - y[i])
        agree[i], untied_x[i], untied_y[i] = sx @ sy, sx @ sx, sy @ sy
    pairs = untied_x.mean() * untied_y.mean()
    if pairs == 0:
        return float("nan"), np.zeros(len(x))
    scale = np.sqrt(pairs)
    tau = float(agree.mean() / scale)
    parts = 2 * agree / scale - tau * (untied_x / untied_x.mean() + untied_y / untied_y.mean())
    return tau, parts - parts.mean()


_INFLUENCE: dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]] = {
    "pearson": _pearson,
    "spearman": _spearman,
    "kendall": _kendall,
}
