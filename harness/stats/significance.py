"""p values for paired scores: exact McNemar, sign-flip permutation, and corrections for several comparisons."""

from __future__ import annotations

import numpy as np
from scipy import stats

EXACT_FLIPS = 16
"""Up to this many units all sign patterns are enumerated."""


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided McNemar test: the binomial test that discordant pairs fall either way alike."""
    if wins + losses == 0:
        return 1.0
    return float(stats.binomtest(wins, wins + losses, 0.5).pvalue)


def sign_flip(differences: np.ndarray, rng: np.random.Generator, flips: int = 10_000) -> np.ndarray:
    """Two-sided paired permutation tests: the sign of every unit's difference is equally likely under the null.

    `differences` is (units, comparisons); all comparisons share the flips, so that the work is one matrix product.
    Exact up to EXACT_FLIPS units; otherwise Monte Carlo with the observed pattern counted, so that p is never zero.
    """
    n = len(differences)
    totals = differences.sum(0)
    observed = np.abs(totals) * (1 - 1e-12)
    if n <= EXACT_FLIPS:
        patterns = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)
        return (np.abs(totals - 2 * patterns @ differences) >= observed).mean(0)
    hits, done, chunk = np.zeros(differences.shape[1]), 0, max(1, 5_000_000 // n)
    while done < flips:
        rows = min(chunk, flips - done)
        bits = np.frombuffer(rng.bytes(rows * (n // 8 + 1)), dtype=np.uint8).reshape(rows, -1)
        flipped = np.unpackbits(bits, axis=1, count=n).astype(np.float64)
        hits += (np.abs(totals - 2 * flipped @ differences) >= observed).sum(0)
        done += rows
    return (hits + 1) / (flips + 1)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment of p values, in their order."""
    return _adjusted(p, "holm")


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's adjustment, controlling the false discovery rate."""
    return _adjusted(p, "fdr_bh")


def _adjusted(p: np.ndarray, how: str) -> np.ndarray:
    from statsmodels.stats.multitest import multipletests

    return np.asarray(multipletests(p, method=how)[1]) if len(p) else np.asarray(p)
