"""Quantiles kept in order, and widened until they cover what they promise."""

from __future__ import annotations

from typing import Literal

import numpy as np

How = Literal["sort", "isotonic", "sweep", "none"]


def monotonise(q: np.ndarray, how: How) -> np.ndarray:
    """Rows of quantiles (n, levels) made to rise.

    `sort` orders each row; `isotonic` takes the nearest rising row in squares (it keeps the row's mean); `sweep` goes
    outward from the median, no quantile crossing the one before.
    """
    if how == "sort":
        return np.sort(q, axis=1)
    if how == "isotonic":
        return _isotonic(q)
    if how == "sweep":
        middle = q.shape[1] // 2
        below = np.minimum.accumulate(q[:, middle::-1], axis=1)[:, ::-1]
        return np.concatenate([below, np.maximum.accumulate(q[:, middle:], axis=1)[:, 1:]], axis=1)
    return q


def _isotonic(q: np.ndarray) -> np.ndarray:
    """max over starts a <= j of the min over ends b >= j of the mean of q[a..b] (Robertson et al. 1988, Eq. 1.4.2)."""
    levels = q.shape[1]
    sums = np.concatenate([np.zeros((len(q), 1)), np.cumsum(q, axis=1)], axis=1)
    best = np.full(q.shape, -np.inf)
    for a in range(levels):
        means = (sums[:, a + 1 :] - sums[:, a : a + 1]) / np.arange(1, levels - a + 1)
        least = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]  # over ends b >= j
        best[:, a:] = np.maximum(best[:, a:], least)
    return best


def conformal_widths(q: np.ndarray, target: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """What to add to each level (levels,) so that its central interval covers: conformalized quantile regression.

    For the pair of levels around an interval with 1 - alpha inside, the residuals max(low - y, y - high) of calibration
    rows (n, levels) are taken at their ceil((n + 1)(1 - alpha)) / n quantile (Romano et al. 2019, Eq. 6 and 8); the
    lower level goes down by it, the upper up. A level without a partner stays.
    """
    widths = np.zeros(len(levels))
    n = len(target)
    for low in range(len(levels) // 2):
        high = len(levels) - 1 - low
        if abs(levels[low] + levels[high] - 1) > 1e-9:
            continue
        missed = np.maximum(q[:, low] - target, target - q[:, high])
        part = min(1.0, np.ceil((n + 1) * (1 - 2 * levels[low])) / n)
        width = np.quantile(missed, part, method="higher")
        widths[low], widths[high] = -width, width
    return widths
