"""Correlations: values of scipy, influences of the jackknife, intervals near scipy's bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from stats_samples import score_set

from harness.errors import BadInput
from harness.stats import correlation, interval
from harness.stats.correlation import influence

TEXTBOOK = {
    "pearson": lambda x, y: stats.pearsonr(x, y).statistic,
    "spearman": lambda x, y: stats.spearmanr(x, y).statistic,
    "kendall": lambda x, y: stats.kendalltau(x, y).statistic,
}


def pair(n, *, ties):
    rng = np.random.default_rng(n)
    x = rng.normal(size=n)
    y = x + rng.normal(size=n)
    return (np.round(x, 1), np.round(y)) if ties else (x, y)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("kind", TEXTBOOK)
def test_values_are_scipys_and_influences_those_of_leaving_one_out(kind, ties):
    x, y = pair(300, ties=ties)
    value, parts = influence(x, y, kind)
    assert value == pytest.approx(TEXTBOOK[kind](x, y), abs=1e-12)
    left_out = [TEXTBOOK[kind](np.delete(x, i), np.delete(y, i)) for i in range(300)]
    jackknife = 299 * (value - np.array(left_out))
    assert np.corrcoef(jackknife, parts)[0, 1] > 0.999
    assert parts.std() == pytest.approx(jackknife.std(), rel=0.02)
    assert parts.mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", TEXTBOOK)
def test_intervals_are_near_the_bootstrap_of_scipy(kind):
    x, y = pair(250, ties=False)
    found = correlation(x, y, kind)
    theirs = stats.bootstrap(
        (x, y), TEXTBOOK[kind], paired=True, vectorized=False, n_resamples=1500, rng=np.random.default_rng(0)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.low == pytest.approx(theirs.low, abs=0.1 * width)
    assert found.high == pytest.approx(theirs.high, abs=0.1 * width)


def test_correlation_of_a_score_set_is_that_of_its_scores():
    x, y = pair(200, ties=True)
    one = interval(score_set(x, targets=y, summary="spearman"))
    other = correlation(x, y, "spearman")
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), rel=1e-4)


def test_blocks_of_correlated_items_widen_the_interval():
    x, y = pair(40, ties=False)
    x, y = np.repeat(x, 10), np.repeat(y, 10)
    blocks = [f"document {i // 10}" for i in range(400)]
    free = interval(score_set(x, targets=y, summary="pearson"))
    blocked = interval(score_set(x, targets=y, summary="pearson", blocks=blocks))
    assert blocked.half_width > 2.5 * free.half_width


def test_perfect_and_undefined_correlations():
    x = np.arange(20.0)
    perfect = correlation(x, x**3, "kendall")
    assert (perfect.value, perfect.low, perfect.high) == pytest.approx((1, 1, 1))
    for y in (np.ones(20), np.where(x == 3, np.nan, x)):
        with pytest.raises(BadInput, match="not defined"):
            correlation(x, y)
    with pytest.raises(BadInput, match=r"x has shape \(20,\) and y \(19,\)"):
        correlation(x, x[:19])
    with pytest.raises(BadInput, match="seed 0: all scores or all targets are equal"):
        interval(score_set(np.ones(20), targets=x, summary="spearman"))
