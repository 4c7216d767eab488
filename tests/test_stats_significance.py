"""p values: agreement with scipy and statsmodels, and what they do at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from stats_samples import score_set
from statsmodels.stats.contingency_tables import mcnemar as textbook_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_effectsize
from statsmodels.stats.weightstats import ttost_paired

from harness.stats import compare
from harness.stats.resample import Units, variance
from harness.stats.significance import (
    adjust,
    cohen_h,
    d_z,
    mcnemar,
    paired_permutation,
    sign_flip,
    tost,
    tost_binary,
)


def test_mcnemar_is_the_textbook_exact_test():
    for wins, losses in [(0, 0), (1, 7), (30, 12), (5, 5)]:
        expected = textbook_mcnemar([[10, wins], [losses, 10]], exact=True).pvalue if wins + losses else 1.0
        assert mcnemar(wins, losses) == pytest.approx(expected, abs=1e-10)


def test_exact_permutation_agrees_with_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.5, 1, 9), rng.normal(0, 1, 9)
    expected = stats.permutation_test(
        (x, y), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=10_000
    ).pvalue
    assert sign_flip((x - y)[:, None], rng)[0] == pytest.approx(expected, abs=1e-10)


def test_monte_carlo_permutation_approaches_the_exact_one():
    rng = np.random.default_rng(1)
    d = rng.normal(0.4, 1, (16, 1))
    exact = sign_flip(d, rng)[0]
    padded = np.concatenate([d, np.zeros((4, 1))])
    assert sign_flip(padded, rng, 40_000)[0] == pytest.approx(exact, abs=0.01)


def test_permutation_over_seeds_and_items_has_the_p_of_the_crossed_t_test():
    """With many normal items the flips' distribution is Student's, so that the p must be the quasi-F's."""
    rng = np.random.default_rng(2)
    for shift in (0.05, 0.15):
        pair = Units(
            shift + 0.05 * rng.normal(size=(4, 1)) + rng.normal(size=400) + rng.normal(size=(4, 400)), np.ones(400)
        )
        value, freedom = variance(pair)
        expected = 2 * stats.t.sf(abs(pair.estimate) / value**0.5, freedom)
        assert paired_permutation([pair], rng, 40_000)[0] == pytest.approx(expected, abs=0.015)


def test_permutation_with_seeds_that_agree_is_that_of_one_seed():
    rng = np.random.default_rng(3)
    d = rng.normal(0.1, 1, size=(1, 12))
    one, three = (Units(np.repeat(d, seeds, axis=0), np.ones(12)) for seeds in (1, 3))
    assert paired_permutation([three], rng)[0] == pytest.approx(paired_permutation([one], rng)[0], abs=1e-10)


def test_corrections_are_the_textbook_ones():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert adjust(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    for some in (p, np.random.default_rng(5).random(40) ** 3, np.array([0.02, 0.02, 0.9, 0.9, 0.0]), np.array([0.3])):
        assert adjust(some) == pytest.approx(multipletests(some, method="holm")[1], abs=1e-12)
        assert adjust(some, "bh") == pytest.approx(multipletests(some, method="fdr_bh")[1], abs=1e-12)
    assert (adjust(p, "none") == p).all()
    assert len(adjust(np.empty(0))) == 0


def test_two_one_sided_tests_agree_with_statsmodels():
    rng = np.random.default_rng(4)
    x, y = rng.normal(0.1, 1, 80), rng.normal(0, 1, 80)
    expected = ttost_paired(x, y, -0.3, 0.3)[0]
    assert compare(score_set(x), score_set(y), margin=0.3).equivalence_p == pytest.approx(expected, abs=1e-10)
    assert tost(0.1, 0.0, 5.0, 0.2) == 0
    assert tost(0.2, 0.0, 5.0, 0.2) == 1


def test_score_statistic_is_tangos_published_example():
    """Tango (1998), section 4: 44 pairs of a crossover study, 0 against 1 of them discordant, margin 0.1."""
    assert stats.norm.isf(tost_binary(0, 1, 44, 0.1)) == pytest.approx(1.709, abs=2e-3)


def test_score_test_of_binary_scores_is_that_of_maximum_likelihood():
    """The nuisance probability found by a search of the constrained likelihood instead of Tango's closed form."""
    wins, losses, n, margin = 7, 12, 150, 0.1
    tails = []
    for delta, tail in ((-margin, stats.norm.sf), (margin, stats.norm.cdf)):
        lost = np.linspace(0, 1, 200_001)
        won, tied = lost + delta, 1 - 2 * lost - delta
        inside = (won > 0) & (lost > 0) & (tied > 0)
        won, lost, tied = won[inside], lost[inside], tied[inside]
        best = np.argmax(wins * np.log(won) + losses * np.log(lost) + (n - wins - losses) * np.log(tied))
        tails.append(tail((wins - losses - n * delta) / np.sqrt(n * (won[best] + lost[best] - delta**2))))
    assert tost_binary(wins, losses, n, margin) == pytest.approx(max(tails), rel=1e-3)
    assert tost_binary(losses, wins, n, margin) == pytest.approx(max(tails), rel=1e-3)


def test_few_binary_items_without_discordance_claim_nothing():
    assert tost_binary(0, 0, 10, 0.01) > 0.3
    assert tost_binary(0, 0, 10_000, 0.01) < 1e-6
    base = score_set(np.tile([1.0, 0.0], 10), higher_is_better=True)
    assert compare(base, base, margin=0.01).verdict == "inconclusive"


def test_effect_sizes():
    assert cohen_h(0.5, 0.5) == 0
    assert cohen_h(1.0, 0.0) == pytest.approx(np.pi)
    assert cohen_h(0.81, 0.77) == pytest.approx(proportion_effectsize(0.81, 0.77), abs=1e-12)
    assert d_z(np.array([1.0, 2.0, 3.0])) == 2
    assert d_z(np.full(4, -0.5)) == -np.inf
    assert d_z(np.zeros(4)) == 0
