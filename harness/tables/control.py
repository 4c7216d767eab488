"""The null control of a table: its baseline set against itself with other seeds.

Nothing but the seed differs, so whatever difference is found here is what a difference between methods must exceed.
The mean over all pairs (seed s, seed s+1) is zero by construction, so each pair is looked at alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.stats import ScoreSet
from harness.stats.resample import Units, bca, bootstrap_means
from harness.stats.significance import Correction, adjust, paired_permutation
from harness.stats.verdict import score_units
from harness.tables.statistics import ALPHA, CONFIDENCE, RESAMPLES


@dataclass(frozen=True)
class NullControl:
    """The largest difference between two seeds of one baseline row, its 95% interval over items (infinite where the
    seed is the unit), how many pairs of seeds there are, and how many the test tells apart."""

    row: int
    difference: float
    low: float
    high: float
    pairs: int
    apart: int


def null_control(sets: Mapping[int, ScoreSet], correction: Correction = "holm", seed: int = 0) -> NullControl | None:
    """Every seed of every baseline row against the row's next seed, the last against the first, on the same items.

    The differences are those of `harness.stats.compare` (of the logarithm for a perplexity). None where no row has two
    seeds.
    """
    pairs = [(at, pair) for at, one in sets.items() for pair in _seed_pairs(score_units(one))]
    if not pairs:
        return None
    at, widest = max(pairs, key=lambda pair: abs(pair[1].estimate))
    rng = np.random.default_rng(seed)
    alike: dict[int, list[Units]] = {}
    for _, pair in pairs:
        alike.setdefault(len(pair.weights), []).append(pair)
    chances = np.concatenate([paired_permutation(some, rng, RESAMPLES) for some in alike.values()])
    low, high = bca(widest, bootstrap_means([widest], RESAMPLES, seed)[0], CONFIDENCE)
    apart = int((adjust(chances, correction) < ALPHA).sum())
    return NullControl(at, widest.estimate, low, high, len(pairs), apart)


def _seed_pairs(one: Units) -> list[Units]:
    """Differences of neighbouring seeds, the last beside the first; two seeds make one pair."""
    seeds = len(one.sums)
    firsts = range(seeds if seeds > 2 else seeds - 1)
    return [Units(one.sums[[(s + 1) % seeds]] - one.sums[[s]], one.weights) for s in firsts]
