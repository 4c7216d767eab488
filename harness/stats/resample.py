"""Two-level resampling: seeds and items are crossed, so both are drawn, independently of each other.

One draw of counts serves every method of a table: a resample of the items is a vector of counts, and all methods' item
sums under all resamples are one matrix product (the pigeonhole bootstrap, owen2007pigeonhole).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy import special

CHUNK = 2_000_000
"""Numbers held at once: bounds the memory, whatever the number of units and of methods."""
KEPT = 50_000_000
"""Counts of at most so many numbers, a byte each, are kept, of a few sizes: 10,000 resamples of 5,000 items."""
COUNTED = 50_000
"""Draws counted at once: few enough to stay in the cache, many enough that numpy and not Python does the work."""


@dataclass(frozen=True)
class Units:
    """Scores summed up to the unit of resampling: `sums` (seeds, units) of weight * value, `weights` (units,)."""

    sums: np.ndarray
    weights: np.ndarray

    @property
    def estimate(self) -> float:
        return float(self.sums.sum() / (self.weights.sum() * len(self.sums)))

    @property
    def levels(self) -> str:
        """What varies: "items" (or blocks of them), "seeds", or both."""
        seeds, n = self.sums.shape
        if seeds > 1 and n > 1:
            return "items and seeds"
        return "seeds" if seeds > 1 else "items"


def units(values: np.ndarray, weights: np.ndarray | None, blocks: np.ndarray | None) -> Units:
    """Sum (S, N) values into blocks; without blocks every item is a unit."""
    weights = np.ones(values.shape[1]) if weights is None else weights
    weighted = values * weights
    if blocks is None:
        return Units(weighted, weights)
    count = int(blocks.max()) + 1
    sums = np.stack([np.bincount(blocks, row, minlength=count) for row in weighted])
    return Units(sums, np.bincount(blocks, weights, minlength=count))


def draw_counts(n: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Multinomial counts of n units drawn n times with replacement: (rows, n), resamples rows in all, in chunks of at
    most CHUNK numbers. A byte holds a count: that one of more than 255 units is drawn so often has probability 0."""
    most, step = max(1, CHUNK // n), max(1, COUNTED // n)
    for start in range(0, resamples, most):
        rows = min(most, resamples - start)
        counts = np.empty((rows, n), dtype=np.uint8)
        for at in range(0, rows, step):
            few = min(step, rows - at)
            picks = rng.integers(0, n, size=(few, n)) + np.arange(0, few * n, n)[:, None]
            counts[at : at + few] = np.bincount(picks.ravel(), minlength=few * n).reshape(few, n)
        yield counts


def shared_counts(n: int, resamples: int, seed: int, what: Literal["units", "seeds"]) -> Iterable[np.ndarray]:
    """The counts that every statistic of so many units (or seeds) rests on, as `draw_counts` has them. Those of a usual
    test set are drawn once for all metrics, problems and comparisons of a table; larger ones every time."""
    if n * resamples > KEPT:
        return draw_counts(n, resamples, np.random.default_rng([seed, what == "seeds"]))
    return _kept_counts(n, resamples, seed, what)


@lru_cache(maxsize=4)
def _kept_counts(n: int, resamples: int, seed: int, what: str) -> tuple[np.ndarray, ...]:
    return tuple(draw_counts(n, resamples, np.random.default_rng([seed, what == "seeds"])))


def bootstrap_means(sets: Sequence[Units], resamples: int, seed: int = 0) -> np.ndarray:
    """Weighted means of every set under the same resamples of seeds and units: (sets, resamples).

    All sets must have the same seeds, units and weights. With one seed only units are drawn, with one unit only seeds.
    """
    seeds, n = sets[0].sums.shape
    estimates = np.array([one.estimate for one in sets])
    # About the estimate single precision is enough: its error is some 1e-5 of the standard error.
    centred = np.concatenate([one.sums - one.estimate * one.weights for one in sets]).astype(np.float32)
    weights = sets[0].weights.astype(np.float32)
    seed_counts = np.concatenate(list(shared_counts(seeds, resamples, seed, "seeds"))).astype(np.float32)
    deviations = np.empty((len(sets), resamples), dtype=np.float32)
    done, most = 0, max(1, CHUNK // len(centred))
    for chunk in shared_counts(n, resamples, seed, "units"):
        for rows in np.split(chunk, range(most, len(chunk), most)):
            counts = rows.astype(np.float32)
            now = slice(done, done + len(counts))
            sums = (centred @ counts.T).reshape(len(sets), seeds, -1)
            deviations[:, now] = np.einsum("msr,rs->mr", sums, seed_counts[now]) / (counts @ weights * seeds)
            done += len(counts)
    return estimates[:, None] + deviations


def influence(one: Units) -> tuple[np.ndarray, np.ndarray]:
    """Influence of every unit (units,) and seed (seeds,) on the weighted mean, each averaging to zero."""
    n = len(one.weights)
    mean, total = one.estimate, one.weights.sum()
    by_unit = (one.sums.mean(0) - mean * one.weights) / total * n
    by_seed = one.sums.sum(1) / total - mean
    return by_unit, by_seed


def variance(one: Units) -> tuple[float, float]:
    """(variance of the weighted mean, its degrees of freedom) under the crossed model.

    Seeds, units and their interaction contribute sigma_s^2/S + sigma_u^2/N + sigma_e^2/(SN); the mean squares give it
    without bias as (MS_seed + MS_unit - MS_error)/(SN), never below the error term alone. A single number has no
    variance that could be known: (inf, 1). With one seed the variance is that of the items alone.
    """
    seeds, n = one.sums.shape
    mean, total = one.estimate, one.weights.sum()
    residual = (one.sums - mean * one.weights) * (n / total)
    row, column = residual.mean(1), residual.mean(0)
    if seeds == n == 1:
        return float("inf"), 1.0
    if n == 1:
        return float(row.var(ddof=1) / seeds), float(seeds - 1)
    ms_unit = seeds * column.var(ddof=1)
    if seeds == 1:
        return float(ms_unit / n), float(n - 1)
    ms_seed = n * row.var(ddof=1)
    error = residual - row[:, None] - column[None, :] + residual.mean()
    ms_error = float((error**2).sum() / ((seeds - 1) * (n - 1)))
    size = seeds * n
    total = max(ms_seed + ms_unit - ms_error, ms_error)
    if total == 0:
        return 0.0, n - 1.0
    parts = ((ms_seed / total, seeds - 1), (ms_unit / total, n - 1), (ms_error / total, (seeds - 1) * (n - 1)))
    return float(total / size), combined_freedom(parts, min(seeds, n) - 1)


def combined_freedom(parts: Sequence[tuple[float, int]], fewest: int) -> float:
    """Degrees of freedom of a sum of variances from each one's (share of the sum, own degrees of freedom).

    Satterthwaite's (satterthwaite1946approximate) is the inverse of the sum of share^2 / freedom. It trusts the shares
    as if they were known. Where a share rests on few seeds (or few documents) that is too bold: a spread between seeds
    that came out small by chance takes its own degrees of freedom with it, and a 95% interval of three seeds covers
    92.2%. For the part with the fewest degrees of freedom the square therefore gives way to share^2 (3 - 2 share),
    which is nearer to 1 where that part prevails: the coverage stays within 0.7 points of 95% whatever the share, from
    three seeds on. Two seeds have a single degree of freedom, with which no rule attains its level for all shares; with
    the root of the share the interval errs on the wide side (docs/statistics.md has both).
    """
    inverse = 0.0
    for share, freedom in parts:
        share = min(share, 1.0)
        if freedom > fewest:
            inverse += share**2 / freedom
        else:
            inverse += (share**2 * (3 - 2 * share) if freedom > 1 else share**0.5) / freedom
    return max(1 / inverse, float(fewest))


def bca(one: Units, replicates: np.ndarray, confidence: float) -> tuple[float, float]:
    """Bias-corrected accelerated interval (efron1987better) of a weighted mean from its bootstrap replicates (R,).

    The pigeonhole draw counts the seed-by-item interaction more than once and knows nothing of few seeds, so the
    replicates are scaled about the estimate to the unbiased variance and the normal quantile is replaced by that of
    Student's t with the degrees of freedom of `variance`. The acceleration takes the third moments of both factors.
    What the correction for skewness does is done in part only where the skewness is not well known (`known_skewness`):
    one far value of a symmetric, heavy-tailed score would otherwise shift the interval away from the truth.
    """
    estimate = one.estimate
    value, freedom = variance(one)
    if not np.isfinite(value):
        return -np.inf, np.inf
    spread = replicates.std(ddof=1)
    if spread == 0 or value == 0:
        return estimate, estimate
    deviations = (replicates - estimate) / spread
    ties = np.abs(deviations) < 1e-4  # replicates are exact to some 1e-5 only
    below = ((deviations < 0) & ~ties).mean() + ties.mean() / 2
    bias = special.ndtri(np.clip(below, 1e-9, 1 - 1e-9))
    by_unit, by_seed = (part / len(part) for part in influence(one))
    moment2 = (by_unit**2).sum() + (by_seed**2).sum()
    acceleration = ((by_unit**3).sum() + (by_seed**3).sum()) / (6 * moment2**1.5)
    known = known_skewness(by_unit, by_seed)
    z = special.ndtri([(1 - confidence) / 2, (1 + confidence) / 2])
    levels = special.ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))
    widen = special.stdtrit(freedom, 0.5 + confidence / 2) / z[1]
    limits = known * np.quantile(deviations, levels) + (1 - known) * z
    low, high = estimate + limits * np.sqrt(value) * widen
    return float(low), float(high)


def known_skewness(*parts: np.ndarray) -> float:
    """Share of the square of the third moment that is not noise, in [0, 1], as in an estimate of James and Stein.

    `parts` are the influences of the units of each factor, which average to zero. The noise is the variance of the sum
    of their cubes, with what their mean and sum have in common taken off (3 s^2 x for a value x).
    """
    moment = sum(float((part**3).sum()) for part in parts)
    noise = sum(float(((part**3 - 3 * part * (part**2).mean()) ** 2).sum()) for part in parts)
    return max(0.0, 1 - noise / moment**2) if moment else 0.0
