"""Performance profiles and the Pareto front."""

from __future__ import annotations

import numpy as np
import pytest
from stats_samples import score_set

from harness.errors import BadInput
from harness.stats import pareto_front, performance_profile, profile_scores
from harness.stats.pareto import undominated

TIMES = np.array([[1.0, 2.0, np.inf], [3.0, 1.0, 2.0], [np.inf, 5.0, 5.0], [np.inf, np.inf, np.inf]])


def test_profiles_count_workloads_within_a_factor_of_the_best():
    found = performance_profile(TIMES, np.array([1.0, 2.0, 3.0]))
    assert found == pytest.approx(np.array([[0.25, 0.25, 0.5], [0.5, 0.75, 0.75], [0.25, 0.5, 0.5]]))


def test_profile_score_is_the_integral_of_the_profile():
    taus = np.linspace(1, 4, 300_001)
    integral = np.trapezoid(performance_profile(TIMES, taus), taus, axis=1) / 3
    assert profile_scores(TIMES) == pytest.approx(integral, abs=1e-5)


def test_times_that_are_none_are_refused():
    for bad in (np.zeros((2, 2)), np.full((2, 2), np.nan), np.ones(3)):
        with pytest.raises(BadInput, match="times must be"):
            profile_scores(bad)


def test_front_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    costs, losses = rng.integers(0, 4, size=12).astype(float), rng.integers(0, 4, size=(12, 200)).astype(float)
    found = undominated(costs, losses)
    for i in range(12):
        beaten = np.zeros(200, dtype=bool)
        for j in range(12):
            no_worse = (costs[j] <= costs[i]) & (losses[j] <= losses[i])
            beaten |= no_worse & ((costs[j] < costs[i]) | (losses[j] < losses[i]))
        assert (found[i] == ~beaten).all()


def test_membership_is_as_sure_as_the_difference_that_decides_it():
    rng = np.random.default_rng(1)
    item = rng.normal(size=(2, 400))
    noise = lambda: 0.1 * rng.normal(size=(2, 400))  # noqa: E731
    sets = {
        "16 bit": score_set(item),
        "4 bit": score_set(item + 0.5 + noise()),
        "close rival": score_set(item + 0.5 + noise()),
        "beaten": score_set(item + 0.9 + noise()),
    }
    found = pareto_front({"16 bit": 16.0, "4 bit": 4.0, "close rival": 4.0, "beaten": 4.5}, sets)
    assert found["16 bit"] == found["16 bit"].__class__(True, 1.0)
    assert (found["beaten"].on_front, found["beaten"].confidence) == (False, 0.0)
    rivals = found["4 bit"], found["close rival"]
    assert sum(one.confidence for one in rivals) == pytest.approx(1, abs=0.01)
    assert all(0.001 < one.confidence < 0.999 for one in rivals)
    assert [one.on_front for one in rivals] == [one.confidence > 0.5 for one in rivals]


def test_front_needs_a_cost_of_every_method():
    with pytest.raises(BadInput, match="method 'b' needs both a cost and scores"):
        pareto_front({"a": 1.0}, {"a": score_set([1, 2]), "b": score_set([1, 2])})
    assert pareto_front({}, {}) == {}
