"""Ratios of times over interleaved rounds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.errors import BadInput
from harness.stats import paired_ratio
from harness.stats.ratio import median_interval


def test_what_slows_a_whole_round_cancels():
    rng = np.random.default_rng(0)
    drift = np.exp(rng.normal(size=(30, 1)))
    found = paired_ratio(2 * drift * np.ones((30, 2)), drift * np.ones((30, 2)))
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))
    assert found.p == pytest.approx(2 / 2**30)
    assert found.rounds == 30


def test_exchanging_the_sides_inverts_the_ratio():
    rng = np.random.default_rng(1)
    a, b = rng.lognormal(size=(2, 11))
    one, other = paired_ratio(a, b), paired_ratio(b, a)
    assert (one.value, one.low, one.high) == pytest.approx((1 / other.value, 1 / other.high, 1 / other.low))
    assert one.of_medians == pytest.approx(np.median(a) / np.median(b))
    assert one.p == pytest.approx(stats.binomtest(int((a > b).sum()), 11).pvalue, abs=1e-12)


def test_an_outlier_in_a_round_moves_little():
    a, b = np.full((12, 4), 3.0), np.full((12, 4), 2.0)
    a[3, 1] = 1000
    assert paired_ratio(a, b).high == pytest.approx(1.5)


def test_median_interval_is_the_published_one():
    """Where order statistics attain the level exactly, nothing is interpolated."""
    values = np.arange(1.0, 11.0)
    low, high = median_interval(values, 1 - 2 * stats.binom.cdf(1, 10, 0.5))
    assert (low, high) == pytest.approx((2, 9))
    low, high = median_interval(values, 0.95)
    assert 2 < low < 3
    assert low + high == pytest.approx(11)


def test_too_few_rounds_and_unpaired_rounds_are_refused():
    with pytest.raises(BadInput, match="5 rounds cannot give a 95% interval of the median; at least 6"):
        paired_ratio(np.ones(5), np.ones(5))
    with pytest.raises(BadInput, match="a has 8 rounds and b 9"):
        paired_ratio(np.ones(8), np.ones(9))
    with pytest.raises(BadInput, match="b has a value that is not positive"):
        paired_ratio(np.ones(8), np.zeros(8))
    with pytest.raises(BadInput, match="a has shape"):
        paired_ratio(1.0, np.ones(8))
    assert paired_ratio(np.ones(6), np.ones(6)).p == 1
