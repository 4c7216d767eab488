"""p values for paired scores: McNemar, sign flips, two one-sided tests; effect sizes and corrections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import scipy  # its parts are loaded where they are first used
from scipy import special

from harness.errors import BadInput
from harness.stats.resample import CHUNK, Units, variance

EXACT_FLIPS = 16
"""Up to this many units all sign patterns are enumerated."""

Correction = Literal["holm", "bh", "none"]
"""How p values of one table are adjusted: Holm (any error in the table), Benjamini-Hochberg (the share of false
discoveries), or not."""


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided McNemar test: the binomial test that discordant pairs fall either way alike."""
    if wins + losses == 0:
        return 1.0
    return float(scipy.stats.binomtest(wins, wins + losses, 0.5).pvalue)


def sign_flip(
    differences: np.ndarray, rng: np.random.Generator, flips: int = 10_000, observed: np.ndarray | None = None
) -> np.ndarray:
    """Two-sided paired permutation tests: the sign of every unit's difference is equally likely under the null.

    `differences` is (units, comparisons); all comparisons share the flips, so that the work is one matrix product.
    `observed` (comparisons,) are the absolute totals to be reached, by default those of the differences.
    Exact up to EXACT_FLIPS units; otherwise Monte Carlo with the observed pattern counted, so that p is never zero.
    """
    n = len(differences)
    totals = differences.sum(0)
    reach = (np.abs(totals) if observed is None else observed) * (1 - 1e-12)
    if n <= EXACT_FLIPS:
        patterns = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)
        return (np.abs(totals - 2 * patterns @ differences) >= reach).mean(0)
    hits, done, most = np.zeros(differences.shape[1]), 0, max(1, CHUNK // max(differences.shape))
    while done < flips:
        rows = min(most, flips - done)
        bits = np.frombuffer(rng.bytes(rows * (n // 8 + 1)), dtype=np.uint8).reshape(rows, -1)
        flipped = np.unpackbits(bits, axis=1, count=n).astype(np.float64)
        hits += (np.abs(totals - 2 * flipped @ differences) >= reach).sum(0)
        done += rows
    return (hits + 1) / (flips + 1)


def paired_permutation(pairs: Sequence[Units], rng: np.random.Generator, flips: int = 10_000) -> np.ndarray:
    """p of every paired difference by flipping its units, under the same flips: (pairs,).

    One seed: the units' signs. One unit: the seeds' signs. Both: the signs of the units' means over seeds, where the
    total to be reached is the one that is as rare among flips as the mean is in units of its two-level standard error,
    read from Student's t (the quasi-F of clark1973language, with the degrees of freedom of `variance`). Flips alone
    would know nothing of the variance between seeds, and flipping three or five seeds could never reject.
    """
    if not pairs:
        return np.empty(0)
    observed = np.array([_total_to_reach(pair) for pair in pairs])
    return sign_flip(np.stack([flipped_units(pair) for pair in pairs], axis=1), rng, flips, observed)


def least_p(units: int, flips: int = 10_000) -> float:
    """The smallest p that flipping so many units can give: 2 of all patterns, or none of those drawn."""
    return 2.0 ** (1 - units) if units <= EXACT_FLIPS else 1 / (flips + 1)


def flipped_units(pair: Units) -> np.ndarray:
    """What the permutation test flips: the units' means over seeds, or the seeds where there is one unit."""
    return pair.sums.mean(0) if pair.sums.shape[1] > 1 else pair.sums[:, 0]


def _total_to_reach(pair: Units) -> float:
    seeds, n = pair.sums.shape
    parts = flipped_units(pair)
    total = abs(float(parts.sum()))
    value, freedom = variance(pair)
    if seeds == 1 or n == 1 or value == 0:
        return total
    tail = special.stdtr(freedom, -abs(pair.estimate) / np.sqrt(value))
    # Flips of n parts make a studentized mean of n - 1 degrees of freedom; t = m sqrt(n) / sd solved for the total n m.
    t = min(-float(special.stdtrit(n - 1, max(tail, 1e-300))), 1e6)
    return float(t * np.sqrt(n * (parts**2).sum() / (n - 1 + t**2)))


def tost(difference: float, standard_error: float, freedom: float, margin: float) -> float:
    """Two one-sided t tests (schuirmann1987comparison): p of the claim that the difference is within +-margin."""
    if standard_error == 0:
        return 0.0 if abs(difference) < margin else 1.0
    below = special.stdtr(freedom, -(difference + margin) / standard_error)
    above = special.stdtr(freedom, (difference - margin) / standard_error)
    return float(max(below, above))


def tost_binary(wins: int, losses: int, n: int, margin: float) -> float:
    """Two one-sided score tests for paired 0/1 scores (tango1998equivalence): p of a difference within +-margin.

    The variance is that of the boundary, so that a handful of items without a single discordant pair claims nothing.
    """
    if margin >= 1:
        return 0.0
    return float(max(special.ndtr(sign * _tango(wins, losses, n, sign * margin)) for sign in (-1, 1)))


def _tango(wins: int, losses: int, n: int, delta: float) -> float:
    """Score statistic of the hypothesis that the true difference (wins - losses) / n is delta (Tango 1998, eq. 9)."""
    b = -wins - losses + (2 * n - wins + losses) * delta
    c = -losses * delta * (1 - delta)
    losing = (np.sqrt(b**2 - 8 * n * c) - b) / (4 * n)
    spread = n * (2 * losing + delta * (1 - delta))
    return float((wins - losses - n * delta) / np.sqrt(spread))


def cohen_h(a: float, b: float) -> float:
    """Difference of two proportions on the arcsine scale, where its spread does not depend on their level."""
    return float(2 * np.arcsin(np.sqrt(a)) - 2 * np.arcsin(np.sqrt(b)))


def d_z(differences: np.ndarray) -> float:
    """Mean difference in standard deviations of the differences; nan for a single one."""
    if len(differences) < 2:
        return float("nan")
    mean, spread = differences.mean(), differences.std(ddof=1)
    if spread == 0:
        return 0.0 if mean == 0 else float(np.copysign(np.inf, mean))
    return float(mean / spread)


def adjust(p: np.ndarray, correction: Correction = "holm") -> np.ndarray:
    """The p values of one table adjusted for being several, in their order."""
    p = np.asarray(p, dtype=np.float64)
    if correction not in get_args(Correction):
        raise BadInput(f"correction {correction!r} is not known; it can be {', '.join(get_args(Correction))}")
    if correction == "none" or not len(p):
        return p
    if correction == "bh":
        return scipy.stats.false_discovery_control(p)
    # Holm (holm1979simple), as in statsmodels, whose import takes longer than a table.
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted
