"""What a design can detect: predicted power of the paired tests."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import scipy  # its parts are loaded where they are first used
from scipy import special

POWER = 0.8


def power(difference: float, standard_error: float, freedom: float, alpha: float = 0.05) -> float:
    """Probability that a two-sided test at level alpha finds a true difference (noncentral t)."""
    if standard_error == 0 or not np.isfinite(standard_error):
        return float(alpha if difference == 0 or standard_error > 0 else 1.0)
    away = abs(difference) / standard_error
    critical = special.stdtrit(freedom, 1 - alpha / 2)
    other_side = float(special.nctdtr(freedom, away, -critical))
    if math.isnan(other_side):  # so scipy has it where it is below 1e-11
        other_side = 0.0
    return float(1 - special.nctdtr(freedom, away, critical) + other_side)


def detectable(standard_error: float, freedom: float, alpha: float = 0.05, wanted: float = POWER) -> float:
    """The smallest true difference that is found with probability `wanted`."""
    if standard_error == 0 or not np.isfinite(standard_error):
        return float(standard_error)
    return _away(freedom, alpha, wanted) * standard_error


@lru_cache(maxsize=1024)
def _away(freedom: float, alpha: float, wanted: float) -> float:
    """How many standard errors from zero a difference is that is found with probability `wanted`."""
    guess = special.stdtrit(freedom, 1 - alpha / 2) + special.stdtrit(freedom, wanted)
    low, high = 0.0, float(2 * guess + 2)
    while low < (middle := (low + high) / 2) < high and high - low > 1e-13 * high:  # power rises with the difference
        low, high = (middle, high) if power(middle, 1.0, freedom, alpha) < wanted else (low, middle)
    return high


def mcnemar_power(wins: float, losses: float, items: int, alpha: float = 0.05) -> float:
    """Power of the exact McNemar test when a pair is won with probability `wins` and lost with `losses`.

    Exact: the number of discordant pairs is binomial, and so are the wins among them. With wins = losses it is the
    level that the test attains, which is below alpha.
    """
    discordant = wins + losses
    if discordant == 0:
        return 0.0
    m = np.arange(items + 1)
    # The largest k with P(X <= k) <= alpha / 2 for X binomial (m, 1/2): ppf gives the smallest k that exceeds it.
    k = scipy.stats.binom.ppf(alpha / 2, m, 0.5)
    k = np.where(scipy.stats.binom.cdf(k, m, 0.5) <= alpha / 2, k, k - 1)
    share = wins / discordant
    rejects = scipy.stats.binom.cdf(k, m, share) + scipy.stats.binom.sf(m - k - 1, m, share)
    return float((scipy.stats.binom.pmf(m, items, discordant) * rejects).sum())
