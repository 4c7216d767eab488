"""Ratios of times: what interleaved rounds say, when the machine drifts from round to round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # its parts are loaded where they are first used
from numpy.typing import ArrayLike

from harness.errors import BadInput


@dataclass(frozen=True)
class Ratio:
    """a over b: below 1, a is the faster. `p` is of the hypothesis that the ratio is 1 (exact sign test)."""

    value: float
    low: float
    high: float
    p: float
    rounds: int
    of_medians: float


def paired_ratio(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Ratio:
    """The ratio of two positive quantities measured in the same rounds, with its interval.

    `a` and `b` are (rounds,) or (rounds, measurements of one round): times of an A B B A round are two each. Within a
    round the ratio is that of the two medians, and `value` is the (geometric) median of the rounds' ratios, so that
    whatever slows a whole round cancels; exchanging a and b inverts it. The interval is that of the median by order
    statistics, interpolated (hettmansperger1986confidence): no distribution is assumed, nothing is drawn.
    `of_medians` is the plain ratio of the medians of all measurements, which a reader of the two columns would compute.

    Raises BadInput for fewer than 6 rounds, unequal numbers of them, and values that are not positive and finite.
    """
    sides = {"a": _rounds(a, "a"), "b": _rounds(b, "b")}
    if len(sides["a"]) != len(sides["b"]):
        raise BadInput(
            f"a has {len(sides['a'])} rounds and b {len(sides['b'])}; a ratio needs both measured in every round"
        )
    logs = np.sort(np.log(np.median(sides["a"], axis=1)) - np.log(np.median(sides["b"], axis=1)))
    low, high = median_interval(logs, confidence)
    above, below = int((logs > 0).sum()), int((logs < 0).sum())
    p = float(scipy.stats.binomtest(above, above + below).pvalue) if above + below else 1.0
    of_medians = float(np.median(sides["a"]) / np.median(sides["b"]))
    return Ratio(float(np.exp(np.median(logs))), float(np.exp(low)), float(np.exp(high)), p, len(logs), of_medians)


def median_interval(ordered: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the median from sorted values (..., n): order statistics between which it lies, interpolated."""
    n = ordered.shape[-1]
    tail = (1 - confidence) / 2
    if scipy.stats.binom.cdf(0, n, 0.5) > tail:
        needed = int(np.ceil(1 - np.log2(1 - confidence)))
        raise BadInput(
            f"{n} rounds cannot give a {confidence:.0%} interval of the median; at least {needed} are needed"
        )
    k = int(scipy.stats.binom.ppf(tail, n, 0.5))
    if scipy.stats.binom.cdf(k, n, 0.5) <= tail:
        k += 1
    # From the k-th value to the k-th last covers at least `confidence`, from the next inner pair less.
    outer, inner = (1 - 2 * scipy.stats.binom.cdf(at - 1, n, 0.5) for at in (k, k + 1))
    share = (outer - confidence) / (outer - inner)
    weight = (n - k) * share / (k + (n - 2 * k) * share)
    low = (1 - weight) * ordered[..., k - 1] + weight * ordered[..., k]
    high = (1 - weight) * ordered[..., n - k] + weight * ordered[..., n - k - 1]
    return low, high


def _rounds(values: ArrayLike, name: str) -> np.ndarray:
    rounds = np.asarray(values, dtype=np.float64)
    if rounds.ndim not in (1, 2) or not rounds.size:
        raise BadInput(f"{name} has shape {rounds.shape}; it must be (rounds,) or (rounds, measurements)")
    if not (np.isfinite(rounds) & (rounds > 0)).all():
        raise BadInput(f"{name} has a value that is not positive and finite; ratios need measured quantities")
    return rounds.reshape(len(rounds), -1)
