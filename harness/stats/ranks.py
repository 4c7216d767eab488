"""Methods compared across datasets: ranks, and the tests that go with them (demsar2006statistical)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy  # its parts are loaded where they are first used
from numpy.typing import ArrayLike

from harness.errors import BadInput
from harness.stats.significance import Correction, adjust


@dataclass(frozen=True)
class Ranking:
    """Methods over datasets, in the order of `names`.

    `ranks` are average ranks (1 is best). `friedman_p` is of the F statistic (see `friedman`), whose level holds for
    few datasets; `friedman` and `chi2_p` are Friedman's own. `wilcoxon_p` (methods, methods) are those of all pairs
    after correction. Methods whose average ranks are less than `critical_difference` apart cannot be told from each
    other (Nemenyi); `cliques` are the largest such groups, as a critical-difference diagram joins them.
    """

    names: tuple[str, ...]
    ranks: np.ndarray
    datasets: int
    friedman: float
    chi2_p: float
    friedman_p: float
    wilcoxon_p: np.ndarray
    critical_difference: float
    cliques: tuple[tuple[str, ...], ...]


def rank(
    scores: Mapping[str, Sequence[float]],
    *,
    higher_is_better: bool,
    alpha: float = 0.05,
    correction: Correction = "holm",
) -> Ranking:
    """Compare methods by one score on each of the same datasets, in the same order.

    Raises BadInput for fewer than three methods or two datasets, unequal numbers of datasets, and missing scores.
    """
    lengths = {name: len(row) for name, row in scores.items()}
    if len(scores) < 3 or min(lengths.values()) < 2:
        raise BadInput(f"{len(scores)} methods cannot be ranked; at least 3 methods and 2 datasets are needed")
    if len(set(lengths.values())) > 1:
        raise BadInput(f"methods were scored on different numbers of datasets: {lengths}")
    table = np.array([list(row) for row in scores.values()], dtype=np.float64).T
    for name, column in zip(scores, table.T, strict=True):
        if not np.isfinite(column).all():
            raise BadInput(f"method {name!r} has score {column[~np.isfinite(column)][0]}; ranks need every score")
    ranks = average_ranks(table, higher_is_better)
    chi2, chi2_p, f_p = friedman(table)
    apart = critical_difference(table.shape[1], table.shape[0], alpha)
    return Ranking(
        tuple(scores), ranks, len(table), chi2, chi2_p, f_p, pairwise_wilcoxon(table, correction), apart,
        tuple(tuple(tuple(scores)[i] for i in group) for group in cliques(ranks, apart)),
    )  # fmt: skip


def average_ranks(table: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """Mean over datasets of the rank of every method, 1 the best, ties shared: (methods,) from (datasets, methods)."""
    return scipy.stats.rankdata(-table if higher_is_better else table, axis=1).mean(0)


def friedman(table: np.ndarray) -> tuple[float, float, float]:
    """(Friedman's chi-squared, its p, p of Iman and Davenport's F) of (datasets, methods).

    The degrees of freedom of F are those of Kendall's beta approximation (kendall1939problem), k - 1 - 2/n in place of
    k - 1: with five methods on twelve datasets the level is then 5.0% instead of 5.4%.
    """
    if np.ptp(table, axis=1).max() == 0:
        return 0.0, 1.0, 1.0
    n, k = table.shape
    chi2, p = scipy.stats.friedmanchisquare(*table.T)
    left = n * (k - 1) - chi2
    # The same order of methods on every dataset leaves nothing unexplained.
    freedom = k - 1 - 2 / n
    f_p = scipy.stats.f.sf((n - 1) * chi2 / left, freedom, (n - 1) * freedom) if left > 1e-9 * n * k else 0.0
    return float(chi2), float(p), float(f_p)


def critical_difference(methods: int, datasets: int, alpha: float = 0.05) -> float:
    """Nemenyi: average ranks this far apart differ, in a family of all pairs at level alpha."""
    q = scipy.stats.studentized_range.ppf(1 - alpha, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * datasets)))


def cliques(ranks: np.ndarray, apart: float) -> list[tuple[int, ...]]:
    """The largest groups of two or more methods whose average ranks span less than `apart`, best first."""
    order = np.argsort(ranks, kind="stable")
    groups: list[tuple[int, ...]] = []
    end = 0
    for start in range(len(order)):
        last = int(np.flatnonzero(ranks[order] - ranks[order[start]] < apart)[-1])
        if last > end and last > start:
            groups.append(tuple(int(i) for i in order[start : last + 1]))
            end = last
    return groups


def pairwise_wilcoxon(table: np.ndarray, correction: Correction = "holm") -> np.ndarray:
    """p of Wilcoxon's signed-rank test of all pairs of columns, corrected: symmetric, 1 on the diagonal."""
    k = table.shape[1]
    pairs = list(combinations(range(k), 2))
    p = np.array([wilcoxon(table[:, i] - table[:, j]) for i, j in pairs])
    found = np.ones((k, k))
    for (i, j), one in zip(pairs, adjust(p, correction), strict=True):
        found[i, j] = found[j, i] = one
    return found


def wilcoxon(differences: ArrayLike) -> float:
    """Two-sided signed-rank p, exact for few pairs without ties; 1 where there is no difference at all."""
    differences = np.asarray(differences, dtype=np.float64)
    return float(scipy.stats.wilcoxon(differences).pvalue) if np.any(differences) else 1.0


@dataclass(frozen=True)
class SignedRank:
    """Posterior probabilities that the difference is practically below, within and above the region of practical
    equivalence; they sum to 1."""

    below: float
    within: float
    above: float


def bayesian_signed_rank(
    differences: ArrayLike, rope: float, *, prior: float = 0.5, samples: int = 20_000, seed: int = 0
) -> SignedRank:
    """Bayesian signed-rank test (benavoli2014bayesian) with a region of practical equivalence of +-rope.

    A Dirichlet process over the differences (one a dataset) with one pseudo-observation of weight `prior` at 0; each
    posterior sample votes for the region that holds most of the Walsh averages' weight.
    """
    if rope < 0:
        raise BadInput(f"rope is {rope}; it must be 0 or above")
    z = np.concatenate([[0.0], np.asarray(differences, dtype=np.float64)])
    averages = (z[:, None] + z) / 2
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.concatenate([[prior], np.ones(len(z) - 1)]), size=samples)
    regions = (averages < -rope, np.abs(averages) <= rope, averages > rope)
    shares = np.stack([((weights @ one) * weights).sum(1) for one in regions], axis=1)
    best = shares == shares.max(1, keepdims=True)
    below, within, above = (best / best.sum(1, keepdims=True)).mean(0)
    return SignedRank(float(below), float(within), float(above))
