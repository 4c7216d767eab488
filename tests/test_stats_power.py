"""Predicted power: agreement with statsmodels, and exact identities."""

from __future__ import annotations

import numpy as np
import pytest
from stats_samples import score_set
from statsmodels.stats.power import TTestPower

from harness.stats import compare
from harness.stats.power import detectable, mcnemar_power, power
from harness.stats.significance import mcnemar


@pytest.mark.parametrize("n", [5, 10, 200])
@pytest.mark.parametrize("effect", [0.0, 0.1, 0.5, 2.0])
def test_power_is_that_of_the_textbook(n, effect):
    expected = TTestPower().power(effect, n, 0.05)
    assert power(effect, n**-0.5, n - 1) == pytest.approx(expected, abs=1e-10)


def test_detectable_difference_is_found_with_the_wanted_probability():
    for freedom in (1.0, 4.3, 9.0, 500.0, 1e8):
        for wanted in (0.5, 0.8, 0.95):
            assert power(detectable(0.2, freedom, 0.01, wanted), 0.2, freedom, 0.01) == pytest.approx(wanted, abs=1e-9)


def test_power_at_the_edges():
    assert power(0.0, 1.0, 20.0) == pytest.approx(0.05)
    assert power(1e6, 1.0, 2.0) == pytest.approx(1)
    assert power(0.1, 0.0, 5.0) == 1
    assert detectable(0.0, 5.0) == 0
    assert detectable(np.inf, 1.0) == np.inf


def test_power_of_mcnemar_is_the_sum_over_all_outcomes():
    n, wins, losses = 9, 0.4, 0.1
    total = 0.0
    for w in range(n + 1):
        for l in range(n + 1 - w):
            if mcnemar(w, l) <= 0.05:
                ways = np.prod(np.arange(1, n + 1)) / np.prod(np.arange(1, w + 1)) / np.prod(np.arange(1, l + 1))
                rest = n - w - l
                total += ways / np.prod(np.arange(1, rest + 1)) * wins**w * losses**l * (1 - wins - losses) ** rest
    assert mcnemar_power(wins, losses, n) == pytest.approx(total, abs=1e-10)
    assert mcnemar_power(0.0, 0.0, 50) == 0


def test_a_comparison_knows_its_own_power():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(5, 100))
    found = compare(score_set(base + 0.3 * rng.normal(size=(5, 100))), score_set(base))
    assert found.power(found.detectable) == pytest.approx(0.8, abs=1e-9)
    assert found.power(2 * found.detectable) > 0.99
