"""Intervals, paired comparisons and their verdicts: what a table prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from harness.errors import BadInput
from harness.stats.correlation import Kind, fisher_z, influence, linear_units
from harness.stats.power import detectable, power
from harness.stats.ratio import median_interval
from harness.stats.resample import Units, bca, bootstrap_means, units, variance
from harness.stats.scoreset import ScoreSet, require_pairable, require_same_seeds
from harness.stats.significance import (
    Correction,
    adjust,
    cohen_h,
    d_z,
    flipped_units,
    least_p,
    mcnemar,
    paired_permutation,
    tost,
    tost_binary,
)

Key = TypeVar("Key")
MEDIANS = ("median", "exp_median")
Verdict = Literal["better", "worse", "equivalent", "inconclusive"]


@dataclass(frozen=True)
class Interval:
    """A summary with its confidence interval. `levels` says what was resampled: items, seeds, or both."""

    value: float
    low: float
    high: float
    levels: str = "items"

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Comparison:
    """Method a minus method b, on the same items and seeds.

    For a perplexity (`exp_mean`) the difference is that of the mean log, so that it does not depend on the level; the
    ratio of perplexities is its exponential. `p` is of the hypothesis of no difference, `equivalence_p` of a difference
    beyond the margin (None without a margin); `adjusted_...` are those after the table's correction, on which the
    verdict rests. `units` is the number of items, or of blocks of them; `least_p` is the smallest p that the test could
    have given with so many pairs. `detectable` is the smallest true difference that this design would have found with
    probability 0.8, at the strictest level that the correction can ask of it: infinite where `least_p` is above that.
    """

    difference: float
    low: float
    high: float
    p: float
    test: str
    effect: float
    effect_name: str
    verdict: Verdict
    detectable: float
    levels: str
    items: int
    seeds: int
    adjusted_p: float | None = None
    equivalence_p: float | None = None
    adjusted_equivalence_p: float | None = None
    standard_error: float = float("nan")
    freedom: float = float("nan")
    units: int = 0
    least_p: float = 0.0

    @property
    def caveat(self) -> str:
        """What the number of seeds does not let this comparison say, in a sentence; empty where it says what it should.

        With one seed the interval is over items alone. Few pairs (five seeds with one score each) cannot give a small
        p. The spread between two seeds is a single difference.
        """
        if self.seeds == self.items == 1:
            return "A single pair of numbers has neither an interval nor a test."
        if self.least_p > 0.05:
            pairs = f"{self.seeds} seeds" if self.levels == "seeds" else f"{self.units} independent items"
            return f"{pairs} can give no p below {self.least_p:.2g}: no difference can be shown at the 5% level."
        if self.seeds == 1:
            return "One seed: interval and test are over items only and do not say what another seed would give."
        if self.seeds == 2 and self.items > 1:
            return "Two seeds: their spread rests on a single difference; the interval is wider than it need be."
        return ""

    def power(self, difference: float, alpha: float = 0.05) -> float:
        """Probability that this design finds a true difference of this size."""
        return power(difference, self.standard_error, self.freedom, alpha)


def interval(scores: ScoreSet, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The summary with its BCa interval over items and seeds (both, where there are several of both)."""
    return intervals({"": scores}, confidence, resamples, seed)[""]


def intervals(
    sets: Mapping[Key, ScoreSet], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> dict[Key, Interval]:
    """`interval` of every set; sets of the same shape and weights share one draw of resamples.

    A median's interval is that by order statistics (see `harness.stats.ratio`), infinite where there are too few items.
    """
    found = {name: _of_median(one, confidence) for name, one in sets.items() if one.summary in MEDIANS}
    scaled = {name: _on_scale(one) for name, one in sets.items() if name not in found}
    for names in _alike({name: one for name, (one, _) in scaled.items()}):
        together = [scaled[name][0] for name in names]
        drawn = bootstrap_means(together, resamples, seed)
        for name, one, replicates in zip(names, together, drawn, strict=True):
            back = scaled[name][1]
            low, high = bca(one, replicates, confidence)
            found[name] = Interval(sets[name].value, float(back(low)), float(back(high)), one.levels)
    return {name: found[name] for name in sets}


def _of_median(scores: ScoreSet, confidence: float) -> Interval:
    back = np.exp if scores.summary == "exp_median" else float
    try:
        low, high = median_interval(np.sort(scores.values.mean(0)), confidence)
    except BadInput:
        return Interval(scores.value, -np.inf, np.inf)
    return Interval(scores.value, float(back(low)), float(back(high)))


def correlation(
    x: ArrayLike,
    y: ArrayLike,
    kind: Kind = "spearman",
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Correlation of two rankings of the same items, with its BCa interval on Fisher's scale.

    Raises BadInput where the two are not of one length of at least 3, finite, and both vary.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 3:
        raise BadInput(f"x has shape {x.shape} and y {y.shape}; a correlation needs two of one length, 3 or more")
    value, parts = influence(x, y, kind)
    if not np.isfinite(value):
        raise BadInput("all x or all y are equal, or one is not finite; their correlation is not defined")
    one = fisher_z(Units((value + parts)[None], np.ones(len(x))))
    if one is None:
        return Interval(value, value, value)
    low, high = bca(one, bootstrap_means([one], resamples, seed)[0], confidence)
    return Interval(value, float(np.tanh(low)), float(np.tanh(high)))


def compare(a: ScoreSet, b: ScoreSet, margin: float | None = None, **options) -> Comparison:
    """Paired comparison of two methods, a minus b; see `compare_all`."""
    return compare_all({"the method": a}, b, margin, **options)["the method"]


def compare_all(
    methods: Mapping[str, ScoreSet],
    baseline: ScoreSet,
    margin: float | None = None,
    *,
    alpha: float = 0.05,
    resamples: int = 10_000,
    seed: int = 0,
    correction: Correction = "holm",
) -> dict[str, Comparison]:
    """Every method against the baseline under one draw of resamples, p values corrected over the methods.

    `margin`: differences within it count as equivalent (in the unit of the difference). Raises BadInput where
    signatures, items, weights or seeds do not match, and for a margin or a correction that cannot be.
    """
    if margin is not None and not margin > 0:
        raise BadInput(f"margin is {margin}; it must be above 0")
    for name, one in methods.items():
        require_pairable(baseline, one, "the baseline", name)
        require_same_seeds(baseline, one, "the baseline", name)
    if not methods:
        return {}
    methods = {name: one.on_seeds(baseline.seeds) for name, one in methods.items()}
    pairs = _paired_units(methods, baseline)
    drawn = bootstrap_means(list(pairs.values()), resamples, seed)
    chances = paired_permutation(_tested_units(methods, baseline, pairs), np.random.default_rng(seed), resamples)
    strictest = alpha if correction == "none" else alpha / len(methods)
    least = least_p(len(flipped_units(pairs[next(iter(pairs))])), resamples)
    found = {
        name: _compared(methods[name], baseline, pairs[name], replicates, (float(p), least), margin, (alpha, strictest))
        for name, replicates, p in zip(pairs, drawn, chances, strict=True)
    }
    return _judged(found, baseline.higher_is_better, alpha, correction)


def _on_scale(scores: ScoreSet) -> tuple[Units, Callable[[float], float]]:
    """(units on the scale where the interval is taken, the way back to the summary's own)."""
    one = score_units(scores)
    if scores.summary in ("spearman", "pearson"):
        on_z = fisher_z(one)
        return (one, float) if on_z is None else (on_z, np.tanh)
    return one, np.exp if scores.summary == "exp_mean" else float


def _alike(sets: Mapping[Key, Units]) -> list[list[Key]]:
    """Names in groups that one draw can serve."""
    groups: dict[tuple, list[Key]] = {}
    for name, one in sets.items():
        groups.setdefault((one.sums.shape, one.weights.tobytes()), []).append(name)
    return list(groups.values())


def score_units(scores: ScoreSet) -> Units:
    """Units whose weighted mean is the summary (its logarithm for an `exp_mean`)."""
    if scores.summary in ("spearman", "pearson"):
        return linear_units(scores)
    return units(scores.values, scores.weights, scores.blocks)


def _paired_units(methods: Mapping[str, ScoreSet], baseline: ScoreSet) -> dict[str, Units]:
    base = score_units(baseline)
    return {name: Units(score_units(one).sums - base.sums, base.weights) for name, one in methods.items()}


def _tested_units(methods: Mapping[str, ScoreSet], baseline: ScoreSet, pairs: Mapping[str, Units]) -> list[Units]:
    """What the permutation test flips: the paired units; of correlations those of their Fisher transforms, whose spread
    does not depend on their height (on 200 items the test of the plain difference errs in 3.9% of cases, not 5%)."""
    base = fisher_z(score_units(baseline)) if baseline.summary in ("spearman", "pearson") else None
    if base is None:
        return list(pairs.values())
    on_z = {name: fisher_z(score_units(one)) for name, one in methods.items()}
    return [pairs[name] if one is None else Units(one.sums - base.sums, base.weights) for name, one in on_z.items()]


def _compared(
    a: ScoreSet,
    b: ScoreSet,
    pair: Units,
    replicates: np.ndarray,
    chances: tuple[float, float],
    margin: float | None,
    levels: tuple[float, float],
) -> Comparison:
    """One pair, as if it were alone. `chances`: p of the permutation test and the least it could have been; `levels`:
    that of the interval, and the strictest that its test must meet."""
    p, least = chances
    low, high = bca(pair, replicates, 1 - levels[0])
    value, freedom = variance(pair)
    error = float(np.sqrt(value))
    test, within = "paired permutation", None if margin is None else tost(pair.estimate, error, freedom, margin)
    effect, effect_name = d_z(flipped_units(pair)), "d_z"
    if a.summary == "mean" and a.weights is None and _is_binary(a) and _is_binary(b):
        effect, effect_name = cohen_h(a.value, b.value), "Cohen's h"
        if len(a.seeds) == 1 and a.blocks is None:
            signs = a.values[0] - b.values[0]
            wins, losses = int((signs > 0).sum()), int((signs < 0).sum())
            p, test, least = mcnemar(wins, losses), "exact McNemar", 2.0 ** (1 - len(signs))
            within = None if margin is None else tost_binary(wins, losses, len(signs), margin)
    return Comparison(
        pair.estimate, low, high, p, test, effect, effect_name, "inconclusive",
        np.inf if least > levels[1] else detectable(error, freedom, levels[1]), pair.levels, len(a.ids), len(a.seeds),
        equivalence_p=within, standard_error=error, freedom=freedom, units=pair.sums.shape[1], least_p=least,
    )  # fmt: skip


def _judged(
    found: Mapping[str, Comparison], higher_is_better: bool, alpha: float, correction: Correction
) -> dict[str, Comparison]:
    """The comparisons of one table with p values adjusted for their number, and the verdicts that follow."""
    adjusted = adjust(np.array([one.p for one in found.values()]), correction)
    within = np.array([np.nan if one.equivalence_p is None else one.equivalence_p for one in found.values()])
    if not np.isnan(within).any():
        within = adjust(within, correction)
    judged = {}
    for (name, one), p, equivalence in zip(found.items(), adjusted, within, strict=True):
        judged[name] = replace(
            one,
            adjusted_p=float(p),
            adjusted_equivalence_p=None if one.equivalence_p is None else float(equivalence),
            verdict=_verdict(one, float(p), float(equivalence), higher_is_better, alpha),
        )
    return judged


def _verdict(one: Comparison, p: float, equivalence: float, higher_is_better: bool, alpha: float) -> Verdict:
    """Equivalence first: a margin says that differences within it do not matter, however surely they are there.

    Better or worse needs both the test and the interval, which rest on different approximations.
    """
    if equivalence < alpha:
        return "equivalent"
    if p < alpha and (one.low > 0 or one.high < 0):
        return "better" if (one.difference > 0) == higher_is_better else "worse"
    return "inconclusive"


def _is_binary(scores: ScoreSet) -> bool:
    return bool(np.isin(scores.values, (0.0, 1.0)).all())
