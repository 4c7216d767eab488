"""Ranks across datasets: agreement with scipy and scikit-posthocs, and published examples."""

from __future__ import annotations

import numpy as np
import pytest
import scikit_posthocs
from scipy import stats
from statsmodels.stats.multitest import multipletests

from harness.errors import BadInput
from harness.stats import bayesian_signed_rank, rank
from harness.stats.ranks import average_ranks, cliques, critical_difference, friedman, pairwise_wilcoxon

DEMSAR = {  # Demsar (2006), table 6: AUC of C4.5 with four settings on 14 datasets
    "C4.5": [.763, .599, .954, .628, .882, .936, .661, .583, .775, 1, .940, .619, .972, .957],
    "C4.5+m": [.768, .591, .971, .661, .888, .931, .668, .583, .838, 1, .962, .666, .981, .978],
    "C4.5+cf": [.771, .590, .968, .654, .886, .916, .609, .563, .866, 1, .965, .614, .9751, .946],
    "C4.5+m+cf": [.798, .569, .967, .657, .898, .931, .685, .625, .875, 1, .962, .669, .975, .970],
}  # fmt: skip


def test_the_published_example():
    found = rank(DEMSAR, higher_is_better=True)
    assert found.ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=1e-3)
    assert critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=0.01)
    assert critical_difference(4, 14) == pytest.approx(2.569 * (4 * 5 / (6 * 14)) ** 0.5, abs=1e-3)


def test_agreement_with_scipy_and_scikit_posthocs():
    table = np.random.default_rng(0).normal(size=(12, 5)) + np.arange(5) * 0.4
    chi2, p, _ = friedman(table)
    assert (chi2, p) == pytest.approx(tuple(stats.friedmanchisquare(*table.T)), abs=1e-10)
    ranks = average_ranks(table, higher_is_better=False)
    gap = abs(ranks[0] - ranks[4])
    nemenyi = scikit_posthocs.posthoc_nemenyi_friedman(table).to_numpy()[0, 4]
    assert critical_difference(5, 12, nemenyi) == pytest.approx(gap, abs=1e-6)
    found = pairwise_wilcoxon(table)
    raw = [stats.wilcoxon(table[:, i], table[:, j]).pvalue for i in range(5) for j in range(i + 1, 5)]
    assert found[np.triu_indices(5, 1)] == pytest.approx(multipletests(raw, method="holm")[1], abs=1e-10)
    assert (found == found.T).all()
    assert (np.diag(found) == 1).all()


def test_f_is_that_of_an_analysis_of_variance_of_the_ranks():
    table = np.round(np.random.default_rng(3).normal(size=(9, 4)) + np.arange(4) * 0.5)  # with ties
    ranks = stats.rankdata(table, axis=1)
    column = ranks.mean(0)
    between = 9 * ((column - 2.5) ** 2).sum() / 3
    residual = ((ranks - column) ** 2).sum() / (3 * 8)
    freedom = 3 - 2 / 9
    assert friedman(table)[2] == pytest.approx(stats.f.sf(between / residual, freedom, 8 * freedom), abs=1e-10)


def test_the_order_of_datasets_and_methods_changes_nothing():
    rng = np.random.default_rng(1)
    shuffled = rng.permutation(14)
    turned = {name: list(np.array(row)[shuffled]) for name, row in reversed(DEMSAR.items())}
    one, other = rank(DEMSAR, higher_is_better=True), rank(turned, higher_is_better=True)
    assert other.ranks == pytest.approx(one.ranks[::-1])
    assert other.friedman_p == pytest.approx(one.friedman_p)
    assert other.wilcoxon_p == pytest.approx(one.wilcoxon_p[::-1, ::-1])


def test_methods_that_never_differ_and_methods_that_always_do():
    same = rank({name: [1.0, 2.0, 3.0] for name in "abc"}, higher_is_better=True)
    assert (same.friedman_p, same.cliques) == (1, (("a", "b", "c"),))
    assert (same.wilcoxon_p == 1).all()
    apart = rank({name: [k + i / 9 for i in range(20)] for k, name in enumerate("abc")}, higher_is_better=False)
    assert list(apart.ranks) == [1, 2, 3]
    assert apart.friedman_p == 0
    assert apart.cliques == ()


def test_cliques_overlap_but_never_contain_each_other():
    assert cliques(np.array([1.0, 1.5, 2.4, 2.6, 4.0]), 1.2) == [(0, 1), (1, 2, 3)]
    assert cliques(np.array([3.0, 1.0, 2.0]), 1.5) == [(1, 2), (2, 0)]


def test_tables_that_cannot_be_ranked_are_refused():
    with pytest.raises(BadInput, match="2 methods cannot be ranked"):
        rank({"a": [1, 2], "b": [1, 2]}, higher_is_better=True)
    with pytest.raises(BadInput, match="different numbers of datasets"):
        rank({"a": [1, 2], "b": [1, 2], "c": [1, 2, 3]}, higher_is_better=True)
    with pytest.raises(BadInput, match="method 'b' has score nan"):
        rank({"a": [1, 2], "b": [1, np.nan], "c": [1, 2]}, higher_is_better=True)


def test_bayesian_signed_rank_puts_its_weight_where_the_differences_are():
    rng = np.random.default_rng(2)
    d = 0.02 + 0.01 * rng.normal(size=30)
    above, within = bayesian_signed_rank(d, 0.005), bayesian_signed_rank(d, 0.1)
    assert above.above > 0.99
    assert within.within > 0.99
    mirrored = bayesian_signed_rank(-d, 0.005)
    assert mirrored.below == pytest.approx(above.above, abs=0.01)
    mixed = bayesian_signed_rank(rng.normal(size=15), 0.2)
    assert mixed.below + mixed.within + mixed.above == pytest.approx(1)
    # One dataset: its weight w is Beta(1, prior), and only the pair of it with itself, of weight w^2, is above 0.3.
    one = bayesian_signed_rank([0.4], 0.3, prior=0.5, samples=200_000)
    assert one.above == pytest.approx(stats.beta.sf(0.5**0.5, 1, 0.5), abs=5e-3)
    with pytest.raises(BadInput, match="rope is -1"):
        bayesian_signed_rank(d, -1)
