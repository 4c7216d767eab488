"""The seed as the unit, and few seeds: what is compared, with how many degrees of freedom, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from stats_samples import score_set, scores
from statsmodels.stats.power import TTestPower

from harness.errors import BadInput
from harness.scores import Scores
from harness.stats import ScoreSet, compare, compare_all, interval
from harness.stats.power import detectable
from harness.stats.resample import combined_freedom, units, variance
from suites.benchmarks.stats_figure import coverage, satterthwaite

SHARES = (0.0, 0.02, 0.1, 0.2, 0.35, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Of the seeds, in the variance of a mean over seeds and many items."""


@pytest.mark.parametrize("cell", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("seeds", [3, 4, 5, 10])
def test_three_seeds_and_more_cover_whatever_their_share_of_the_spread(seeds, cell):
    found = [coverage(seeds, share, cell) for share in SHARES]
    assert min(found) > 0.943
    assert max(found) < 0.958


def test_the_rule_it_replaces_covers_too_seldom():
    assert min(coverage(3, share, 0.25, satterthwaite) for share in SHARES) < 0.925
    assert min(coverage(2, share, 0.25, satterthwaite) for share in SHARES) < 0.88


@pytest.mark.parametrize("cell", [0.0, 0.25, 1.0])
def test_two_seeds_err_on_the_wide_side(cell):
    found = [coverage(2, share, cell) for share in SHARES]
    assert min(found) > 0.935
    assert max(found) < 0.985


def test_freedom_is_satterthwaites_between_parts_that_are_well_known():
    assert combined_freedom(((0.3, 50), (0.7, 80)), 9) == pytest.approx(1 / (0.09 / 50 + 0.49 / 80))
    assert combined_freedom(((1.0, 4), (0.0, 99)), 4) == 4
    assert combined_freedom(((0.0, 4), (1.0, 99)), 4) == pytest.approx(99)


# One score a seed


def test_one_score_a_seed_is_the_textbook_comparison_of_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.6, 1, (10, 1)), rng.normal(0, 1, (10, 1))
    found = compare(score_set(a), score_set(b))
    d = (a - b)[:, 0]
    assert (found.levels, found.seeds, found.items, found.freedom) == ("seeds", 10, 1, 9)
    assert found.standard_error == pytest.approx(stats.sem(d), abs=1e-12)
    assert found.effect == pytest.approx(d.mean() / d.std(ddof=1), abs=1e-12)
    exact = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=2000).pvalue
    assert found.p == pytest.approx(exact, abs=1e-10)
    assert found.power(1.0) == pytest.approx(TTestPower().power(1 / d.std(ddof=1), 10, 0.05), abs=1e-10)
    assert found.detectable == detectable(found.standard_error, 9)
    assert found.caveat == ""


def test_pairs_too_few_for_a_small_p_say_so():
    found = compare(score_set(np.arange(5.0)[:, None] + 100), score_set(np.zeros((5, 1))))
    assert (found.p, found.least_p, found.verdict, found.detectable) == (2 / 32, 2 / 32, "inconclusive", np.inf)
    assert found.caveat == "5 seeds can give no p below 0.062: no difference can be shown at the 5% level."
    assert compare(score_set(np.arange(6.0)[:, None] + 100), score_set(np.zeros((6, 1)))).verdict == "worse"


def test_a_table_too_long_for_its_seeds_can_detect_nothing():
    """Ten seeds give no p below 0.002, which Holm's first step over thirty methods does not take."""
    base = np.random.default_rng(1).normal(size=(10, 1))
    methods = {f"m{k}": score_set(base + 5 + 0.1 * k * base**2) for k in range(30)}
    some = dict(list(methods.items())[:20])
    assert {one.verdict for one in compare_all(methods, score_set(base)).values()} == {"inconclusive"}
    assert {one.detectable for one in compare_all(methods, score_set(base)).values()} == {np.inf}
    assert {one.verdict for one in compare_all(some, score_set(base)).values()} == {"worse"}
    assert {one.verdict for one in compare_all(methods, score_set(base), correction="bh").values()} == {"worse"}


# Few seeds with items


def test_one_seed_is_over_items_only_and_says_so():
    rng = np.random.default_rng(2)
    base = rng.normal(size=200)
    found = compare(score_set(base + 0.1 * rng.normal(size=200)), score_set(base))
    assert (found.levels, interval(score_set(base)).levels) == ("items", "items")
    assert (
        found.caveat == "One seed: interval and test are over items only and do not say what another seed would give."
    )
    assert compare(score_set([3.0]), score_set([1.0])).caveat.startswith("A single pair of numbers")


def test_two_seeds_are_warned_of():
    rng = np.random.default_rng(3)
    base = rng.normal(size=200)
    two, three = (
        compare(score_set(base + 0.1 * rng.normal(size=(s, 200))), score_set(np.tile(base, (s, 1)))) for s in (2, 3)
    )
    assert two.caveat.startswith("Two seeds: their spread rests on a single difference")
    assert three.caveat == ""
    assert two.levels == three.levels == "items and seeds"


def test_few_documents_are_few_whatever_their_windows():
    rng = np.random.default_rng(4)
    blocks = [f"document {at // 50}" for at in range(200)]
    found = compare(score_set(rng.normal(5, 1, 200), blocks=blocks), score_set(rng.normal(0, 1, 200), blocks=blocks))
    assert (found.units, found.least_p, found.verdict) == (4, 1 / 8, "inconclusive")
    assert found.caveat == "4 independent items can give no p below 0.12: no difference can be shown at the 5% level."


# Items of its own for every seed


def episodes(values: np.ndarray, **more) -> ScoreSet:
    """Scores of a policy: every seed draws its own episodes."""
    named = [
        Scores([f"episode {seed}.{at}" for at in range(len(row))], row, "return|v:1", nested=True, **more)
        for seed, row in enumerate(values)
    ]
    return ScoreSet.stack(named, range(len(named)))


def test_seeds_with_items_of_their_own_are_the_units():
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.3, 1, (10, 40)), rng.normal(0, 1, (10, 40))
    found, expected = (
        compare(episodes(a), episodes(b)),
        compare(score_set(a.mean(1)[:, None]), score_set(b.mean(1)[:, None])),
    )
    assert (found.difference, found.p, found.standard_error) == (
        expected.difference,
        expected.p,
        expected.standard_error,
    )
    assert (found.levels, found.freedom, found.seeds) == ("seeds", 9, 10)
    assert interval(episodes(a)).levels == "seeds"


def test_summaries_of_a_seed_are_those_of_the_metric():
    rng = np.random.default_rng(6)
    values, weights, gold = rng.random((4, 30)), rng.integers(1, 9, 30).astype(float), rng.normal(size=30)
    perplexity = episodes(values, weights=weights, summary="exp_mean")
    assert perplexity.value == pytest.approx(np.exp(np.average(values, axis=1, weights=weights).mean()))
    ranks = episodes(values, targets=gold, summary="spearman")
    assert ranks.values[:, 0] == pytest.approx([stats.spearmanr(row, gold).statistic for row in values], abs=1e-12)
    assert ranks.summary == "mean"


def test_one_seed_of_nested_items_is_compared_on_its_items():
    rng = np.random.default_rng(7)
    a, b = rng.normal(0.3, 1, (3, 40)), rng.normal(0, 1, (3, 40))
    found = compare(episodes(a[:1]), episodes(b[:1]))
    assert (found.levels, found.items, found.freedom) == ("items", 40, 39)
    assert found.caveat.startswith("One seed")
    with pytest.raises(BadInput, match="the method has one seed and the baseline several, each with items of its own"):
        compare(episodes(a[:1]), episodes(b))


def test_nested_items_are_still_paired_by_name():
    values = np.random.default_rng(8).normal(size=(3, 5))
    other = episodes(values)
    other = replace(other, items_of={**other.items_of, 1: tuple(f"other {at}" for at in range(5))})
    with pytest.raises(
        BadInput, match=r"the baseline \(seed 1\) and the method \(seed 1\) were scored on different items"
    ):
        compare(other, episodes(values))


def test_ids_given_twice_are_named():
    with pytest.raises(ValueError, match=r"item ids are not unique: 'b', 'c' \(2 such\)"):
        Scores(["a", "b", "b", "c", "c"], np.ones(5), "m")
    with pytest.raises(BadInput, match=r"seed 1 lacks 1 \(item00002\)"):
        ScoreSet.stack([scores([1, 2, 3]), scores([1, 2])], [0, 1])


def test_variance_of_the_shipped_rule_is_that_of_its_parts():
    v = np.random.default_rng(9).normal(size=(3, 50)) + np.array([[0.0], [0.5], [-0.2]])
    value, freedom = variance(units(v, None, None))
    seeds, items = 50 * v.mean(1).var(ddof=1), 3 * v.mean(0).var(ddof=1)
    cells = ((v - v.mean(1, keepdims=True) - v.mean(0) + v.mean()) ** 2).sum() / (2 * 49)
    total = seeds + items - cells
    assert value == pytest.approx(total / 150)
    assert freedom == combined_freedom(((seeds / total, 2), (items / total, 49), (cells / total, 98)), 2)
