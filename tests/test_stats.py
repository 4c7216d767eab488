"""Paired statistics: alignment, agreement with the textbook libraries, identities, and edge cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats
from stats_samples import score_set, scores

from harness.errors import BadInput
from harness.scores import Scores
from harness.stats import ScoreSet, compare, compare_all, interval, intervals, resample
from harness.stats.correlation import influence
from harness.stats.resample import bootstrap_means, draw_counts, known_skewness, shared_counts, units, variance


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


def test_seeds_that_cannot_be_one_set_are_refused():
    with pytest.raises(BadInput, match="seed 3 was given twice"):
        ScoreSet.stack([scores([1, 2])] * 2, [3, 3])
    with pytest.raises(BadInput, match=r"seed 1: item 'item00001' has score nan \(2 such\)"):
        ScoreSet.stack([scores([1, 2, 3]), scores([1, np.nan, np.inf])], [0, 1])
    with pytest.raises(BadInput, match="seed 0 and seed 1 have different weights"):
        ScoreSet.stack([scores([1, 2], weights=[1, 2]), scores([1, 2], weights=[1, 3])], [0, 1])
    with pytest.raises(BadInput, match="no scored items"):
        ScoreSet.stack([scores([])], [0])


def test_comparing_what_is_not_paired_is_refused():
    one = score_set([1, 2, 3])
    with pytest.raises(BadInput, match=r"the method lacks 1 \(item00003\); only scores of the same items"):
        compare(one, score_set([1, 2, 3, 4]))
    with pytest.raises(BadInput, match="the baseline and the method have different blocks"):
        compare(score_set([1, 2, 3], blocks=["a", "a", "b"]), one)
    with pytest.raises(BadInput, match="the baseline has seeds 0, the method 4"):
        compare(replace(one, seeds=(4,)), one)
    with pytest.raises(BadInput, match=r"margin is -0\.1; it must be above 0"):
        compare(one, one, margin=-0.1)
    with pytest.raises(BadInput, match="correction 'tukey' is not known; it can be holm, bh, none"):
        compare(one, one, correction="tukey")


def test_seeds_are_paired_by_their_name_and_not_their_order():
    rng = np.random.default_rng(20)
    base = rng.normal(size=(3, 1)) + rng.normal(size=(3, 40))
    shuffled = replace(score_set(base[[2, 0, 1]] + 1), seeds=(2, 0, 1))
    assert compare(shuffled, score_set(base)).difference == pytest.approx(1)
    assert compare(shuffled, score_set(base)).standard_error == pytest.approx(0, abs=1e-12)


def test_one_level_interval_agrees_with_scipy_bca():
    rng = np.random.default_rng(2)
    values = rng.exponential(size=400)
    ours = interval(score_set(values), resamples=20_000)
    theirs = scipy_stats.bootstrap((values,), np.mean, n_resamples=20_000, rng=rng).confidence_interval
    standard_error = values.std() / np.sqrt(len(values))
    assert ours.low == pytest.approx(theirs.low, abs=0.08 * standard_error)
    assert ours.high == pytest.approx(theirs.high, abs=0.08 * standard_error)
    assert ours.levels == "items"


def test_counts_are_multinomial():
    counts = np.concatenate(list(draw_counts(7, 4000, np.random.default_rng(0))))
    assert (counts.sum(1) == 7).all()
    assert counts.mean() == 1
    assert counts.var() == pytest.approx(1 - 1 / 7, abs=0.03)


def test_seeds_and_units_are_drawn_independently_of_each_other():
    """As many of both have two draws, not one: else a seed would always come with the item of its number."""
    by_unit, by_seed = (np.concatenate(list(shared_counts(9, 2000, 0, what))) for what in ("units", "seeds"))
    correlation = np.corrcoef(by_unit.ravel(), by_seed.ravel())[0, 1]
    assert abs(correlation) < 4 / np.sqrt(by_unit.size)


def test_a_large_draw_is_the_small_one_not_kept(monkeypatch):
    rng = np.random.default_rng(17)
    sets = [units(rng.normal(size=(3, 50)), None, None) for _ in range(2)]
    kept = bootstrap_means(sets, 300)
    monkeypatch.setattr(resample, "KEPT", 0)
    assert np.array_equal(bootstrap_means(sets, 300), kept)


def test_replicates_are_those_of_the_counts_in_double_precision():
    rng = np.random.default_rng(10)
    values, weights = 5 + rng.normal(size=(1, 300)), rng.integers(1, 9, size=300).astype(float)
    drawn = bootstrap_means([units(values, weights, None)], 50, seed=1)[0]
    counts = np.concatenate(list(shared_counts(300, 50, 1, "units"))).astype(float)
    expected = counts @ (values[0] * weights) / (counts @ weights)
    spread = expected.std()
    assert drawn == pytest.approx(expected, abs=1e-4 * spread)


def test_one_number_has_no_interval():
    found = interval(score_set([3.0]))
    assert (found.value, found.low, found.high) == (3, -np.inf, np.inf)
    compared = compare(score_set([3.0]), score_set([1.0]), margin=1)
    assert (compared.p, compared.verdict, compared.detectable) == (1, "inconclusive", np.inf)


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


def test_a_sure_difference_within_the_margin_is_equivalent():
    rng = np.random.default_rng(11)
    base = rng.normal(size=(3, 500))
    a, b = score_set(base + 0.01 + 0.001 * rng.normal(size=(3, 500))), score_set(base)
    assert compare(a, b).verdict == "worse"
    within = compare(a, b, margin=0.05)
    assert within.verdict == "equivalent"
    assert max(within.p, within.equivalence_p) < 1e-3
    assert compare(a, b, margin=0.005).verdict == "worse"


def test_a_difference_between_seeds_far_beyond_its_error_is_found():
    """Flips of the items alone end at p = 1e-4; the seeds' share of the error must not turn that into no p at all."""
    rng = np.random.default_rng(12)
    base = rng.normal(size=(10, 2000))
    shift = 1 + 0.3 * rng.normal(size=(10, 1))
    found = compare(score_set(base + shift + 0.01 * rng.normal(size=(10, 2000))), score_set(base))
    assert found.difference > 9 * found.standard_error
    assert found.p < 1e-3


def test_a_table_is_corrected_as_asked():
    rng = np.random.default_rng(13)
    base = rng.normal(size=100)
    methods = {f"m{k}": score_set(base + 0.02 * k + 0.2 * rng.normal(size=100)) for k in range(6)}
    p = {how: compare_all(methods, score_set(base), correction=how) for how in ("holm", "bh", "none")}
    for name in methods:
        holm, bh, none = (p[how][name].adjusted_p for how in ("holm", "bh", "none"))
        assert holm >= bh >= none == p["none"][name].p
    raw = [one.p for one in p["bh"].values()]
    expected = scipy_stats.false_discovery_control(raw)
    assert [one.adjusted_p for one in p["bh"].values()] == pytest.approx(expected, abs=1e-10)
    assert p["holm"]["m0"].detectable > p["none"]["m0"].detectable


def test_interval_does_not_depend_on_what_it_is_computed_with():
    rng = np.random.default_rng(14)
    sets = {
        "a": score_set(rng.normal(size=(2, 60))),
        "b": score_set(rng.normal(size=(2, 60))),
        "weighted": score_set(rng.normal(size=(2, 60)), weights=rng.integers(1, 5, size=60)),
        "short": score_set(rng.normal(size=30), summary="exp_mean"),
    }
    together = intervals(sets)
    assert list(together) == list(sets)
    for name, one in sets.items():
        alone = interval(one)
        expected = (alone.value, alone.low, alone.high)
        found = (together[name].value, together[name].low, together[name].high)
        assert found == pytest.approx(expected, rel=1e-4)


def test_a_method_against_itself_is_no_difference():
    base = score_set(np.random.default_rng(6).normal(size=(3, 50)))
    same = compare(base, base, margin=0.01)
    assert (same.difference, same.low, same.high, same.p, same.verdict) == (0, 0, 0, 1, "equivalent")


def test_binary_scores_of_one_seed_take_mcnemar_and_cohens_h():
    a, b = np.array([1.0] * 30 + [0.0] * 10), np.array([1.0] * 20 + [0.0] * 20)
    found = compare(score_set(a, higher_is_better=True), score_set(b, higher_is_better=True))
    assert found.test == "exact McNemar"
    assert found.p == pytest.approx(2 * 0.5**10)
    assert found.effect == pytest.approx(2 * np.arcsin(0.75**0.5) - 2 * np.arcsin(0.5**0.5))
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
    both = bootstrap_means([a, a], 200)
    assert both[0] == pytest.approx(both[1], abs=1e-6)


def test_methods_seen_through_one_draw_are_not_independent():
    """What is common to two methods cancels in their difference, resample by resample."""
    rng = np.random.default_rng(15)
    common = rng.normal(size=(3, 200))
    a, b = (units(common + 0.01 * rng.normal(size=(3, 200)), None, None) for _ in range(2))
    drawn = bootstrap_means([a, b], 500)
    assert (drawn[0] - drawn[1]).std() < 0.05 * drawn[0].std()


def test_skewness_is_corrected_for_as_far_as_it_is_known():
    rng = np.random.default_rng(16)
    influences = {name: draw - draw.mean() for name, draw in (
        ("skewed", rng.exponential(size=5000)), ("one far value", np.append(rng.normal(size=49), 8.0)),
        ("symmetric", np.array([-2.0, -1.0, 0.0, 1.0, 2.0])),
    )}  # fmt: skip
    known = {name: known_skewness(one) for name, one in influences.items()}
    assert known["skewed"] > 0.95
    assert known["one far value"] < 0.3
    assert known["symmetric"] == 0
    assert known_skewness(influences["skewed"], np.array([-0.01, 0.01])) == pytest.approx(known["skewed"])


def test_differences_of_correlations_are_tested_on_fishers_scale():
    rng = np.random.default_rng(17)
    gold = rng.normal(size=12)
    a, b = (score_set(gold + s * rng.normal(size=12), targets=gold, summary="pearson") for s in (0.5, 1.0))
    (za, zb) = (
        np.arctanh(one.value) + influence(one.values[0], gold, "pearson")[1] / (1 - one.value**2) for one in (a, b)
    )
    exact = scipy_stats.permutation_test((za - zb,), np.mean, permutation_type="samples", n_resamples=5000).pvalue
    assert compare(a, b).p == pytest.approx(exact, abs=1e-10)
