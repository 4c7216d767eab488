"""Intervals, paired comparisons and their verdicts: what a table prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from harness.scores import summarize
from harness.stats.resample import Units, bca, bootstrap_means, draw_counts, units, variance
from harness.stats.scoreset import ScoreSet, require_same_items, require_same_signature
from harness.stats.significance import holm, mcnemar, sign_flip

Verdict = Literal["better", "worse", "equivalent", "inconclusive"]
POWER = 0.8


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
    ratio of perplexities is its exponential. `detectable` is the smallest true difference that this design would have
    found with probability 0.8.
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


def interval(scores: ScoreSet, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The summary with its BCa interval over items and seeds (both, where there are several of both)."""
    rng = np.random.default_rng(seed)
    if scores.summary in ("spearman", "pearson"):
        replicates = _correlations(scores, resamples, rng)
        low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Interval(scores.value, float(low), float(high), _levels(scores))
    one = units(scores.values, scores.weights, scores.blocks)
    low, high = bca(one, bootstrap_means([one], resamples, rng)[0], confidence)
    if scores.summary == "exp_mean":
        low, high = float(np.exp(low)), float(np.exp(high))
    return Interval(scores.value, low, high, _levels(scores))


def compare(a: ScoreSet, b: ScoreSet, margin: float | None = None, **options) -> Comparison:
    """Paired comparison of two methods; see `compare_all`."""
    return compare_all({"a": a}, b, margin, **options)["a"]


def compare_all(
    methods: Mapping[str, ScoreSet],
    baseline: ScoreSet,
    margin: float | None = None,
    *,
    alpha: float = 0.05,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Every method against the baseline, under one draw of resamples, with Holm's correction over the methods.

    `margin`: differences within it count as equivalent (in the unit of the difference). Raises BadInput where
    signatures, items or seeds do not match.
    """
    for name, one in methods.items():
        require_same_signature(baseline.signature, one.signature)
        require_same_items(baseline.ids, one.ids, "the baseline", name)
    rng = np.random.default_rng(seed)
    if baseline.summary in ("spearman", "pearson"):
        found = {name: _compare_correlations(one, baseline, alpha, resamples, seed) for name, one in methods.items()}
    else:
        paired = {name: _paired_units(one, baseline) for name, one in methods.items()}
        drawn = bootstrap_means(list(paired.values()), resamples, rng) if paired else np.empty((0, resamples))
        chances = _permutation_p(list(paired.values()), rng, resamples)
        found = {
            name: _compare_means(methods[name], baseline, paired[name], replicates, float(p), alpha)
            for name, replicates, p in zip(paired, drawn, chances, strict=True)
        }
    adjusted = holm(np.array([one.p for one in found.values()]))
    return {
        name: replace(one, adjusted_p=float(p), verdict=_verdict(one, float(p), baseline, margin, alpha))
        for (name, one), p in zip(found.items(), adjusted, strict=True)
    }


def _paired_units(a: ScoreSet, b: ScoreSet) -> Units:
    differences = a.values - b.values if len(a.seeds) == len(b.seeds) else a.values.mean(0) - b.values.mean(0)
    return units(np.atleast_2d(differences), a.weights, a.blocks)


def _test_units(pair: Units) -> np.ndarray:
    """What the test flips: the items' means over seeds, or the seeds where there is one item a seed."""
    return pair.sums.mean(0) if pair.sums.shape[1] > 1 else pair.sums[:, 0]


def _permutation_p(pairs: list[Units], rng: np.random.Generator, flips: int) -> np.ndarray:
    if not pairs:
        return np.empty(0)
    return sign_flip(np.stack([_test_units(pair) for pair in pairs], axis=1), rng, flips)


def _with_seeds(p: float, pair: Units, value: float, freedom: float) -> float:
    """The p of flipping items, made to answer for the seeds as well.

    Flipping the items' means over seeds knows only the variance between items. Where the seeds add to it, the normal
    deviate of p is shrunk by the ratio of the standard errors and read from Student's t; one seed changes nothing.
    """
    seeds, n = pair.sums.shape
    if seeds == 1 or n == 1:
        return p
    by_item = float((pair.sums.mean(0) - pair.estimate * pair.weights).var(ddof=1) * n / pair.weights.sum() ** 2)
    if by_item == 0 or value <= by_item:
        return p
    deviate = stats.norm.isf(p / 2) * np.sqrt(by_item / value)
    return float(max(p, 2 * stats.t.sf(deviate, freedom)))


def _compare_means(a: ScoreSet, b: ScoreSet, pair: Units, replicates: np.ndarray, p: float, alpha: float) -> Comparison:
    seeds, n = pair.sums.shape
    low, high = bca(pair, replicates, 1 - alpha)
    value, freedom = variance(pair) if seeds * n > 1 else (float("nan"), 1.0)
    test, effect_name = "paired permutation", "d_z"
    if seeds == 1 and a.weights is None and a.blocks is None and _is_binary(a) and _is_binary(b):
        difference = a.values[0] - b.values[0]
        p, test = mcnemar(int((difference > 0).sum()), int((difference < 0).sum())), "exact McNemar"
        effect, effect_name = _cohen_h(a.values.mean(), b.values.mean()), "Cohen's h"
    else:
        p = _with_seeds(p, pair, value, freedom)
        sums = _test_units(pair)
        spread = sums.std(ddof=1) if len(sums) > 1 else 0.0
        effect = float(sums.mean() / spread) if spread > 0 else 0.0
    reach = stats.t.ppf(1 - alpha / 2, freedom) + stats.t.ppf(POWER, freedom)
    return Comparison(
        pair.estimate, low, high, p, test, effect, effect_name, "inconclusive",
        float(reach * np.sqrt(value)), _levels_of(seeds, n), len(a.ids), len(a.seeds),
    )  # fmt: skip


def _verdict(one: Comparison, p: float, baseline: ScoreSet, margin: float | None, alpha: float) -> Verdict:
    """Better or worse needs both the corrected test and the two-level interval; equivalence two one-sided tests."""
    if p < alpha and (one.low > 0 or one.high < 0):
        return "better" if (one.difference > 0) == baseline.higher_is_better else "worse"
    if margin is not None and max(abs(one.low), abs(one.high)) < margin:
        return "equivalent"
    return "inconclusive"


def _is_binary(scores: ScoreSet) -> bool:
    return bool(np.isin(scores.values, (0.0, 1.0)).all())


def _cohen_h(a: float, b: float) -> float:
    return float(2 * np.arcsin(np.sqrt(a)) - 2 * np.arcsin(np.sqrt(b)))


def _levels(scores: ScoreSet) -> str:
    return _levels_of(len(scores.seeds), len(scores.ids))


def _levels_of(seeds: int, items: int) -> str:
    if seeds > 1 and items > 1:
        return "items and seeds"
    return "seeds" if seeds > 1 else "items"


def _correlations(scores: ScoreSet, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Bootstrap replicates of the mean over seeds of the correlation with the targets: (resamples,).

    Ranks are taken once: under resampling with counts a weighted correlation of the ranks is the usual approximation,
    and it is one matrix product.
    """
    x = scores.values
    y = np.asarray(scores.targets)
    if scores.summary == "spearman":
        x, y = stats.rankdata(x, axis=1), stats.rankdata(y)
    x = x - x.mean(1, keepdims=True)
    y = y - y.mean()
    out = []
    for counts in draw_counts(x.shape[1], resamples, rng):
        n = x.shape[1]
        mx, my = counts @ x.T / n, (counts @ y / n)[:, None]
        covariance = counts @ (x * y).T / n - mx * my
        vx, vy = counts @ (x**2).T / n - mx**2, (counts @ y**2 / n)[:, None] - my**2
        r = covariance / np.sqrt(vx * vy)
        picks = rng.integers(0, len(x), size=(len(counts), len(x)))
        out.append(np.take_along_axis(r, picks, axis=1).mean(1))
    return np.concatenate(out)


def _compare_correlations(a: ScoreSet, b: ScoreSet, alpha: float, resamples: int, seed: int) -> Comparison:
    drawn = [_correlations(one, resamples, np.random.default_rng(seed)) for one in (a, b)]
    replicates = drawn[0] - drawn[1]
    difference = a.value - b.value
    low, high = np.quantile(replicates, [alpha / 2, 1 - alpha / 2])
    spread = float(replicates.std(ddof=1))
    centred = np.abs(replicates - replicates.mean()) >= abs(difference)
    p = float((centred.sum() + 1) / (resamples + 1)) if spread > 0 else 1.0
    reach = float((stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(POWER)) * spread)
    return Comparison(
        difference, float(low), float(high), p, "paired bootstrap", difference, "difference of correlations",
        "inconclusive", reach, _levels(a), len(a.ids), len(a.seeds),
    )  # fmt: skip


def mean_of_seeds(scores: ScoreSet) -> list[float]:
    """The summary of every seed."""
    return [summarize(row, scores.summary, scores.weights, scores.targets) for row in scores.values]
