"""Scores of predictors on test rows: pinball loss, interval score, squared error; one per row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.errors import BadInput
from harness.metrics.subject import Subject
from harness.registry import metric
from harness.scores import Scores

VERSION = 1


def pinball(predicted: np.ndarray, target: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Pinball loss (n,), the mean over the levels, of quantiles (n, levels): max(t e, (t - 1) e), e = y - q."""
    error = target[:, None] - predicted
    t = np.asarray(levels)
    return np.maximum(t * error, (t - 1) * error).mean(axis=1)


def squared(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Squared error (n,) of predictions (n, 1)."""
    return (predicted[:, 0] - target) ** 2


def intervals(levels: Sequence[float]) -> list[tuple[int, int, float]]:
    """(lower, upper, alpha) of the central intervals that symmetric levels make: positions, and what lies outside.

    >>> intervals([0.1, 0.5, 0.9])
    [(0, 2, 0.2)]
    """
    pairs = zip(range(len(levels) // 2), reversed(range(len(levels))), strict=False)
    symmetric = [(low, high) for low, high in pairs if abs(levels[low] + levels[high] - 1) < 1e-9]
    return [(low, high, round(2 * float(levels[low]), 12)) for low, high in symmetric]


def interval_scores(predicted: np.ndarray, target: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Weighted interval score (n,) of quantiles (n, levels): the median's absolute error and every central interval's
    width and misses, weighted by half of what lies outside (Bracher et al. 2021, Eq. 1)."""
    found = intervals(levels)
    total = np.zeros(len(target))
    for low, high, alpha in found:
        lower, upper = predicted[:, low], predicted[:, high]
        missed = np.maximum(lower - target, 0) + np.maximum(target - upper, 0)
        total += alpha / 2 * (upper - lower + 2 / alpha * missed)
    middle = [at for at, level in enumerate(levels) if abs(level - 0.5) < 1e-9]
    if middle:
        total += 0.5 * np.abs(target - predicted[:, middle[0]])
    return total / (len(found) + 0.5 * bool(middle))


@metric(bounds=(0, np.inf))
def pinball_loss(subject: Subject) -> Scores:
    """Pinball loss of the predicted quantiles, the mean over the levels, for each test row."""
    predicted, target, levels = _taken(subject, "pinball_loss", quantiles=True)
    return _scores(subject, "pinball", pinball(predicted, target, levels), levels)


@metric(bounds=(0, np.inf))
def interval_score(subject: Subject) -> Scores:
    """Weighted interval score of the predicted quantiles, for each test row. `extra` has the part of the targets inside
    the outermost interval and the part that its levels promise; how far all levels are off is `calibration_error`."""
    predicted, target, levels = _taken(subject, "interval_score", quantiles=True)
    if not intervals(levels):
        raise BadInput(f"metric interval_score needs levels in pairs that add up to 1; the problem has {levels}")
    low, high, alpha = intervals(levels)[0]
    inside = (target >= predicted[:, low]) & (target <= predicted[:, high])
    extra = {"inside": float(inside.mean()), "promised": 1 - alpha}
    return _scores(subject, "interval-score", interval_scores(predicted, target, levels), levels, extra)


@metric(bounds=(0, np.inf))
def squared_error(subject: Subject) -> Scores:
    """Squared error of the predicted mean, for each test row; `extra` has its root over all of them."""
    predicted, target, levels = _taken(subject, "squared_error", quantiles=False)
    errors = squared(predicted, target)
    return _scores(subject, "squared-error", errors, levels, {"rmse": float(np.sqrt(errors.mean()))})


def _taken(subject: Subject, name: str, *, quantiles: bool) -> tuple[np.ndarray, np.ndarray, list[float]]:
    extra = subject.extra
    if "predicted" not in extra:
        raise BadInput(f"metric {name} is for problems of the predict track")
    levels = [float(level) for level in extra["levels"]]
    if bool(levels) != quantiles:
        wanted = "quantiles (bases: quantile)" if quantiles else "the mean (bases: mean)"
        raise BadInput(f"metric {name} is for predictions of {wanted}")
    return extra["predicted"], extra["target"], levels


def _scores(
    subject: Subject,
    name: str,
    values: np.ndarray,
    levels: Sequence[float],
    extra: dict[str, float] | None = None,
) -> Scores:
    kept = min(len(values), subject.limit or len(values))
    shown = f"|levels:{','.join(f'{level:g}' for level in levels)}" if levels else ""
    limit = f"|items:{kept}" if kept < len(values) else ""
    return Scores(
        ids=list(subject.extra["ids"][:kept]),
        values=values[:kept],
        signature=f"{name}|{subject.extra['signature']}{shown}{limit}|v:{VERSION}",
        higher_is_better=False,
        extra=extra or {},
    )
