"""Paired statistics: alignment, agreement with the textbook libraries, identities, and edge cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar as textbook_mcnemar

from harness.errors import BadInput
from harness.scores import Scores
from harness.stats import ScoreSet, compare, compare_all, interval
from harness.stats.resample import bootstrap_means, units, variance
from harness.stats.significance import adjust, mcnemar, sign_flip


def scores(values, **more):
    values = np.asarray(values, dtype=float)
    return Scores([f"item{i:05d}" for i in range(len(values))], values, "metric|data|v:1", **more)


def score_set(rows, **more):
    return ScoreSet.stack([scores(row, **more) for row in np.atleast_2d(rows)], range(len(np.atleast_2d(rows))))


def test_items_are_aligned_by_id_and_never_by_order():
    one = Scores(["b", "a", "c"], np.array([2.0, 1.0, 3.0]), "m")
    other = Scores(["c", "b", "a"], np.array([3.0, 2.0, 1.0]), "m")
    stacked = ScoreSet.stack([one, other], [0, 1])
    assert stacked.ids == ("a", "b", "c")
    assert (stacked.values[0] == stacked.values[1]).all()


def test_missing_and_doubled_items_are_named():
    with pytest.raises(BadInput, match=r"seed 1 lacks 1 \(item00002\)"):
        ScoreSet.stack([scores([1, 2, 3]), scores([1, 2])], [0, 1])
    with pytest.raises(BadInput, match=r"signatures differ in .*ctx:512 / ctx:256"):
        ScoreSet.stack([Scores(["a"], np.ones(1), "m|ctx:512"), Scores(["a"], np.ones(1), "m|ctx:256")], [0, 1])
    with pytest.raises(ValueError, match="not unique"):
        Scores(["a", "a"], np.ones(2), "m")


def test_comparing_different_items_is_refused():
    with pytest.raises(BadInput, match="only scores of the same items can be paired"):
        compare(score_set([1, 2, 3]), score_set([1, 2, 3, 4]))


def test_mcnemar_is_the_textbook_exact_test():
    for wins, losses in [(0, 0), (1, 7), (30, 12), (5, 5)]:
        expected = textbook_mcnemar([[10, wins], [losses, 10]], exact=True).pvalue if wins + losses else 1.0
        assert mcnemar(wins, losses) == pytest.approx(expected, abs=1e-10)


def test_exact_permutation_agrees_with_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.5, 1, 9), rng.normal(0, 1, 9)
    expected = scipy_stats.permutation_test(
        (x, y), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=10_000
    ).pvalue
    assert sign_flip((x - y)[:, None], rng)[0] == pytest.approx(expected, abs=1e-10)


def test_monte_carlo_permutation_approaches_the_exact_one():
    rng = np.random.default_rng(1)
    d = rng.normal(0.4, 1, (16, 1))
    exact = sign_flip(d, rng)[0]
    padded = np.concatenate([d, np.zeros((4, 1))])
    assert sign_flip(padded, rng, 40_000)[0] == pytest.approx(exact, abs=0.01)


def test_corrections_are_the_textbook_ones():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert adjust(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust(p, "bh") == pytest.approx(scipy_stats.false_discovery_control(p), abs=1e-12)


def test_one_level_interval_agrees_with_scipy_bca():
    rng = np.random.default_rng(2)
    values = rng.exponential(size=400)
    ours = interval(score_set(values), resamples=20_000)
    theirs = scipy_stats.bootstrap((values,), np.mean, n_resamples=20_000, rng=rng).confidence_interval
    standard_error = values.std() / np.sqrt(len(values))
    assert ours.low == pytest.approx(theirs.low, abs=0.08 * standard_error)
    assert ours.high == pytest.approx(theirs.high, abs=0.08 * standard_error)
    assert ours.levels == "items"


def test_variance_without_bias_under_the_crossed_model():
    rng = np.random.default_rng(3)
    found = []
    for _ in range(400):
        v = 0.3 * rng.normal(size=(4, 1)) + rng.normal(size=50) + 0.5 * rng.normal(size=(4, 50))
        found.append(variance(units(v, None, None))[0])
    truth = 0.3**2 / 4 + 1 / 50 + 0.25 / 200
    assert np.mean(found) == pytest.approx(truth, rel=0.1)


def test_blocks_are_resampled_whole():
    blocks = [f"doc{i // 10}" for i in range(200)]
    repeated = np.repeat(np.random.default_rng(4).normal(size=20), 10)
    free = interval(score_set(repeated))
    blocked = interval(score_set(repeated, blocks=blocks))
    assert blocked.half_width > 2.5 * free.half_width
    assert blocked.value == free.value


def test_weighted_perplexity_is_the_exponential_of_the_token_mean():
    values, weights = np.array([1.0, 2.0, 3.0]), np.array([100.0, 10.0, 1.0])
    one = interval(score_set(values, weights=weights, summary="exp_mean"))
    assert one.value == pytest.approx(np.exp((values * weights).sum() / weights.sum()))
    assert one.low <= one.value <= one.high


def test_verdicts():
    rng = np.random.default_rng(5)
    base = rng.normal(size=(3, 300)) + rng.normal(size=300)
    noise = 0.1 * rng.normal(size=(3, 300))
    baseline = score_set(base)
    found = compare_all(
        {
            "higher": score_set(base + 0.5 + noise),
            "lower": score_set(base - 0.5 + noise),
            "same": score_set(base + 0.01 * noise),
            "wide": score_set(base + 3 * rng.normal(size=(3, 300))),
        },
        baseline,
        margin=0.05,
    )
    assert {name: one.verdict for name, one in found.items()} == {
        "higher": "worse",
        "lower": "better",
        "same": "equivalent",
        "wide": "inconclusive",
    }
    assert found["higher"].difference == pytest.approx(0.5, abs=0.02)
    assert all(one.adjusted_p >= one.p for one in found.values())
    assert found["wide"].detectable > found["same"].detectable


def test_a_method_against_itself_is_no_difference():
    base = score_set(np.random.default_rng(6).normal(size=(3, 50)))
    same = compare(base, base, margin=0.01)
    assert (same.difference, same.low, same.high, same.p, same.verdict) == (0, 0, 0, 1, "equivalent")


def test_binary_scores_of_one_seed_take_mcnemar_and_cohens_h():
    a, b = np.array([1.0] * 30 + [0.0] * 10), np.array([1.0] * 20 + [0.0] * 20)
    found = compare(score_set(a, higher_is_better=True), score_set(b, higher_is_better=True))
    assert found.test == "exact McNemar"
    assert found.p == pytest.approx(2 * 0.5**10)
    assert found.effect_name == "Cohen's h"
    assert found.verdict == "better"


def test_seed_variance_widens_the_interval_and_the_p_value():
    rng = np.random.default_rng(7)
    item = rng.normal(size=500)
    shifted = np.array([[0.5], [-0.3], [0.1]]) + 0.1 * rng.normal(size=(3, 500))
    found = compare(score_set(item + shifted), score_set(np.tile(item, (3, 1))))
    assert found.levels == "items and seeds"
    assert found.p > 0.3
    assert found.verdict == "inconclusive"


def test_five_seeds_alone_can_never_show_p_below_one_sixteenth():
    found = compare(score_set(np.full((5, 1), 2.0) + np.arange(5)[:, None] * 0.01), score_set(np.zeros((5, 1))))
    assert found.p == pytest.approx(2 / 2**5)


def test_correlations_have_intervals():
    rng = np.random.default_rng(8)
    gold = rng.normal(size=400)
    near, far = gold + 0.5 * rng.normal(size=400), gold + 2 * rng.normal(size=400)
    a = score_set(near, targets=gold, summary="spearman", higher_is_better=True)
    b = score_set(far, targets=gold, summary="spearman", higher_is_better=True)
    assert interval(a).low < scipy_stats.spearmanr(near, gold).statistic < interval(a).high
    found = compare(a, b)
    assert found.verdict == "better"
    assert found.difference == pytest.approx(a.value - b.value)


def test_methods_of_a_table_share_one_draw():
    rng = np.random.default_rng(9)
    a = units(rng.normal(size=(3, 40)), None, None)
    both = bootstrap_means([a, a], 200, np.random.default_rng(0))
    assert (both[0] == both[1]).all()
