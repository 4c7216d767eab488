"""The proof that the tests are right: simulated experiments with a known truth.

False positives, coverage and power over thousands of experiments, each as a user would compute them. Run with `-s`,
this prints the rows of the tables in docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from scipy import stats
from stats_samples import score_set

from harness.stats import Comparison, ScoreSet, compare, compare_all, intervals, paired_ratio
from harness.stats.correlation import influence
from harness.stats.power import detectable, mcnemar_power, power
from harness.stats.ranks import friedman, pairwise_wilcoxon, wilcoxon
from harness.stats.resample import combined_freedom
from harness.stats.significance import mcnemar, tost_binary

pytestmark = pytest.mark.slow

EXPERIMENTS = 4000
"""The standard deviation of a measured rate of 5% is then 0.34%."""
BATCH = 200
RESAMPLES = 2000
LEVEL = 0.05
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_t(4, size=shape) / np.sqrt(2)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.exponential(size=shape) - 1


@dataclass(frozen=True)
class Design:
    """Differences between two methods: seeds and items have effects of their own, and each pair of them one more."""

    items: int
    seeds: int = 1
    seed_sd: float = 0.0
    item_sd: float = 1.0
    cell_sd: float = 0.0
    of_items: Draw = normal
    block: int = 1
    """Items of one document have the same effect."""

    @property
    def blocks(self) -> np.ndarray | None:
        return None if self.block == 1 else np.arange(self.items) // self.block

    @property
    def truth(self) -> tuple[float, float]:
        """(standard error of the mean difference, its degrees of freedom) of the population."""
        n, s = self.items // self.block, self.seeds
        seed, item, cell = (
            n * s * np.array([self.seed_sd**2 / s, self.item_sd**2 / n, self.cell_sd**2 / self.items / s])
        )
        total = seed + item + cell
        error = float(np.sqrt(total / (n * s)))
        if s == 1 or n == 1:
            return error, float(max(s, n) - 1)
        parts = ((seed + cell) / total, s - 1), ((item + cell) / total, n - 1), (cell / total, (s - 1) * (n - 1))
        return error, combined_freedom(parts, min(s, n) - 1)

    def differences(self, rng: np.random.Generator, shift: float) -> np.ndarray:
        """(BATCH, seeds, items)."""
        item = self.of_items(rng, (BATCH, 1, self.items // self.block)).repeat(self.block, axis=2)
        cell = rng.normal(size=(BATCH, self.seeds, self.items))
        return (
            shift + self.seed_sd * rng.normal(size=(BATCH, self.seeds, 1)) + self.item_sd * item + self.cell_sd * cell
        )


ONE_LEVEL = Design(items=200)
THREE_SEEDS = Design(items=200, seeds=3, seed_sd=0.05, cell_sd=0.5)
FIVE_SEEDS = Design(items=200, seeds=5, seed_sd=0.1, cell_sd=0.5)
TEN_SEEDS = Design(items=200, seeds=10, seed_sd=0.3, cell_sd=1.0)
SEEDS_ONLY = Design(items=1, seeds=10, seed_sd=1.0, item_sd=0.0)


def few_seeds(seeds: int, share: float) -> Design:
    """200 items, and seeds that make this share of the variance of the mean beside the items."""
    return Design(items=200, seeds=seeds, seed_sd=(seeds / 200 * share / (1 - share)) ** 0.5, cell_sd=0.5)


DESIGNS = {
    "200 items": ONE_LEVEL,
    "50 items, heavy tails": Design(items=50, of_items=heavy),
    "400 windows of 40 documents": Design(items=400, block=10, cell_sd=0.5),
    "200 items, 3 seeds": THREE_SEEDS,
    "200 items, 5 seeds": FIVE_SEEDS,
    "200 items, 10 seeds": TEN_SEEDS,
    "200 items, 3 seeds with half of the variance": few_seeds(3, 0.5),
    "200 items, 3 seeds with nine tenths of the variance": few_seeds(3, 0.9),
    "10 seeds alone": SEEDS_ONLY,
}
TWO_SEEDS = {
    f"200 items, 2 seeds with {name} of the variance": few_seeds(2, share)
    for name, share in (("a tenth", 0.1), ("half", 0.5), ("nine tenths", 0.9))
}
ALONE = {f"{seeds} seeds alone": replace(SEEDS_ONLY, seeds=seeds) for seeds in (3, 5)}


@cache
def comparisons(design: Design, shift: float = 0.0, margin: float | None = None) -> list[Comparison]:
    """One comparison an experiment. The experiments of a batch are the methods of one table, before its correction."""
    rng = np.random.default_rng(design.items * 100 + design.seeds)
    baseline = sets(design, np.zeros((1, design.seeds, design.items)))["0"]
    found: list[Comparison] = []
    for batch in range(EXPERIMENTS // BATCH):
        methods = sets(design, design.differences(rng, shift))
        found += compare_all(methods, baseline, margin, resamples=RESAMPLES, seed=batch, correction="none").values()
    return found


def sets(design: Design, values: np.ndarray) -> dict[str, ScoreSet]:
    ids, seeds = tuple(f"{i:05d}" for i in range(design.items)), tuple(range(design.seeds))
    return {str(k): ScoreSet(ids, one, seeds, blocks=design.blocks) for k, one in enumerate(values)}


def share(hits: Iterator[bool] | list[bool] | np.ndarray) -> float:
    return float(np.mean(list(hits)))


def printed(kind: str, name: str, *figures: object) -> None:
    print(f"\n| {kind} | {name} | " + " | ".join(map(str, figures)) + " |", end="")


def require_level(name: str, rate: float) -> None:
    printed("false positives", name, f"{rate:.1%}")
    assert 0.04 <= rate <= 0.06


def require_coverage(name: str, rate: float) -> None:
    printed("coverage", name, f"{rate:.1%}")
    assert 0.935 <= rate <= 0.965


def require_power(name: str, predicted: float, rate: float, unpaired: float | None = None) -> None:
    shown = "" if unpaired is None else f"{unpaired:.1%}"
    printed("power", name, f"{predicted:.1%}", f"{rate:.1%}", shown)
    assert rate == pytest.approx(predicted, abs=0.03)


# False positives


@pytest.mark.parametrize("name", DESIGNS)
def test_level_of_the_permutation_test(name):
    require_level(f"paired permutation, {name}", share(one.p < LEVEL for one in comparisons(DESIGNS[name])))


@pytest.mark.parametrize("name", TWO_SEEDS)
def test_two_seeds_err_on_the_wide_side(name):
    """A single degree of freedom for the spread of seeds: no rule holds its level for every share of it."""
    found = comparisons(TWO_SEEDS[name])
    wrong, covered = share(one.p < LEVEL for one in found), share(one.low <= 0 <= one.high for one in found)
    printed("two seeds", name, f"{wrong:.1%}", f"{covered:.1%}")
    assert wrong < 0.065
    assert 0.93 < covered < 0.99


def test_five_seeds_alone_never_reject():
    found = comparisons(ALONE["5 seeds alone"])
    assert min(one.p for one in found) == 1 / 16
    assert {one.detectable for one in found} == {np.inf}


@pytest.mark.parametrize("name", ["200 items", "200 items, 5 seeds", "200 items, 10 seeds", "10 seeds alone"])
def test_level_of_two_one_sided_tests_at_the_margin(name):
    """The truth is the margin itself, where equivalence must not be claimed."""
    design = DESIGNS[name]
    margin = 8 * design.truth[0]
    found = comparisons(design, margin, margin)
    require_level(f"two one-sided tests at the margin, {name}", share(one.equivalence_p < LEVEL for one in found))


def discordant(rng: np.random.Generator, items: int, wins: float, losses: float) -> np.ndarray:
    """(wins, losses, ties) of every experiment."""
    return rng.multinomial(items, [wins, losses, 1 - wins - losses], size=EXPERIMENTS)


def test_level_of_mcnemar():
    """An exact test of counts attains what its lattice lets it: 4.8% with some 2,000 discordant pairs."""
    counts = discordant(np.random.default_rng(0), 10_000, 0.1, 0.1)
    attained = mcnemar_power(0.1, 0.1, 10_000)
    rate = share(mcnemar(int(w), int(l)) < LEVEL for w, l, _ in counts)
    require_level(f"exact McNemar, 10,000 items, a fifth discordant (attainable: {attained:.1%})", rate)
    assert rate == pytest.approx(attained, abs=0.01)


def test_level_of_two_one_sided_score_tests_at_the_margin():
    counts = discordant(np.random.default_rng(1), 1000, 0.08, 0.05)
    rate = share(tost_binary(int(w), int(l), 1000, 0.03) < LEVEL for w, l, _ in counts)
    require_level("two one-sided tests at the margin, 1,000 items of 0/1 scores", rate)


def test_level_of_wilcoxon():
    draws = np.random.default_rng(2).standard_t(3, size=(EXPERIMENTS, 25))
    require_level("Wilcoxon, 25 datasets", share(wilcoxon(one) < LEVEL for one in draws))


def test_level_of_friedman():
    """Datasets differ much more than methods."""
    rng = np.random.default_rng(3)
    tables = 5 * rng.normal(size=(EXPERIMENTS, 12, 1)) + rng.standard_t(3, size=(EXPERIMENTS, 12, 5))
    require_level("Friedman (F), 5 methods on 12 datasets", share(friedman(one)[2] < LEVEL for one in tables))


def test_all_pairs_of_methods_together_keep_the_level():
    """Holm over dependent tests may err less often than its level, never more."""
    tables = np.random.default_rng(4).normal(size=(EXPERIMENTS // 4, 20, 4))
    rate = share((pairwise_wilcoxon(one) < LEVEL).any() for one in tables)
    printed(
        "false positives", "any of 6 pairs, Wilcoxon with Holm, 4 methods on 20 datasets (at most 5%)", f"{rate:.1%}"
    )
    assert 0.01 < rate < 0.06


def rounds(rng: np.random.Generator, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A B B A rounds of equal sides on a machine that drifts between rounds and is disturbed within them."""
    for _ in range(EXPERIMENTS):
        drift = np.exp(0.1 * rng.normal(size=(count, 1)))
        noise = 0.03 * rng.normal(size=(2, count, 2)) + (rng.random((2, count, 2)) < 0.05) * rng.exponential(0.3)
        yield tuple(drift * np.exp(noise))


@pytest.mark.parametrize("count", [8, 20, 50])
def test_level_of_ratios(count):
    found = [paired_ratio(a, b) for a, b in rounds(np.random.default_rng(count), count)]
    require_level(
        f"ratio of times, {count} rounds (interval without 1)", share(not r.low <= 1 <= r.high for r in found)
    )


@cache
def correlated(gap: float) -> list[Comparison]:
    """Two methods' scores against the same targets, Spearman."""
    rng, found = np.random.default_rng(5), []
    for seed in range(EXPERIMENTS):
        gold = rng.normal(size=200)
        a, b = (
            score_set(gold + noise * rng.normal(size=200), targets=gold, summary="spearman", higher_is_better=True)
            for noise in (0.6, 0.6 + gap)
        )
        found.append(compare(a, b, resamples=1000, seed=seed))
    return found


def test_level_of_differences_of_correlations():
    require_level("difference of Spearman correlations, 200 items", share(one.p < LEVEL for one in correlated(0.0)))


# Coverage


@pytest.mark.parametrize("name", [*DESIGNS, *ALONE])
def test_coverage_of_differences(name):
    found = comparisons((DESIGNS | ALONE)[name])
    require_coverage(f"difference, {name}", share(one.low <= 0 <= one.high for one in found))


def covered(draw: Callable[[np.random.Generator], ScoreSet], truth: float) -> float:
    rng, hits = np.random.default_rng(6), 0
    for batch in range(EXPERIMENTS // BATCH):
        found = intervals({str(k): draw(rng) for k in range(BATCH)}, resamples=RESAMPLES, seed=batch)
        hits += sum(one.low <= truth <= one.high for one in found.values())
    return hits / EXPERIMENTS


def test_coverage_of_skewed_scores():
    rate = covered(lambda rng: score_set(skewed(rng, (1, 200))), 0.0)
    require_coverage("mean, 200 items, exponential", rate)


def test_coverage_of_perplexity():
    """Windows of unequal length, skewed losses: the truth is the mean over tokens."""
    weights = np.random.default_rng(7).integers(100, 512, size=150).astype(float)
    rate = covered(
        lambda rng: score_set(3 + 0.5 * skewed(rng, (1, 150)), weights=weights, summary="exp_mean"), np.exp(3)
    )
    require_coverage("perplexity, 150 windows", rate)


def test_coverage_of_accuracy():
    rate = covered(lambda rng: score_set((rng.random((1, 200)) < 0.8).astype(float)), 0.8)
    require_coverage("accuracy 0.8, 200 items", rate)


@pytest.mark.parametrize("kind", ["spearman", "pearson"])
def test_coverage_of_correlations(kind):
    truth = {"spearman": 6 / np.pi * np.arcsin(0.8 / 2), "pearson": 0.8}[kind]

    def draw(rng: np.random.Generator) -> ScoreSet:
        x = rng.normal(size=200)
        return score_set(x, targets=0.8 * x + 0.6 * rng.normal(size=200), summary=kind)

    require_coverage(f"{kind.title()} 0.8, 200 items", covered(draw, truth))


def test_coverage_of_ratios():
    found = [paired_ratio(1.7 * a, b) for a, b in rounds(np.random.default_rng(8), 20)]
    require_coverage("ratio of times, 20 rounds", share(r.low <= 1.7 <= r.high for r in found))


# Power, and what an unpaired test has of it


def unpaired_power(design: Design, shift: float) -> float:
    """Of the z test of two independent samples, as if each method had been given items of its own.

    Scores of items differ twice as much as a method's differences from another do; for text they differ far more.
    """
    rng, hits = np.random.default_rng(9), 0
    for _ in range(EXPERIMENTS // BATCH):
        differences = design.differences(rng, shift).mean(1)
        item = 2 * rng.normal(size=(BATCH, design.items // design.block)).repeat(design.block, axis=1)
        a, b = item + differences / 2, item - differences / 2
        z = (a.mean(1) - b.mean(1)) / np.sqrt((a.var(1, ddof=1) + b.var(1, ddof=1)) / design.items)
        hits += int((np.abs(z) > stats.norm.isf(LEVEL / 2)).sum())
    return hits / EXPERIMENTS


@pytest.mark.parametrize("wanted", [0.5, 0.8])
@pytest.mark.parametrize("name", ["200 items", "200 items, 5 seeds", "200 items, 10 seeds", "10 seeds alone"])
def test_power_is_as_predicted(name, wanted):
    design = DESIGNS[name]
    error, freedom = design.truth
    shift = detectable(error, freedom, LEVEL, wanted)
    assert power(shift, error, freedom) == pytest.approx(wanted)
    rate = share(one.p < LEVEL for one in comparisons(design, shift))
    unpaired = unpaired_power(design, shift) if design.items > 1 else None
    require_power(f"paired permutation, {name}", wanted, rate, unpaired)


def test_power_of_mcnemar_is_as_predicted():
    """Two classifiers of accuracy 0.80 and 0.826 that differ on a tenth of 1,000 items."""
    wins, losses, items = 0.063, 0.037, 1000
    counts = discordant(np.random.default_rng(10), items, wins, losses)
    rate = share(mcnemar(int(w), int(l)) < LEVEL for w, l, _ in counts)
    better = 0.8 + (counts[:, 0] - counts[:, 1]) / items
    spread = np.sqrt((better * (1 - better) + 0.8 * 0.2) / items)
    unpaired = share(np.abs(better - 0.8) / spread > stats.norm.isf(LEVEL / 2))
    require_power("exact McNemar, 1,000 items", mcnemar_power(wins, losses, items), rate, unpaired)


def test_power_of_differences_of_correlations_is_as_predicted():
    """Predicted from the influences of one large sample."""
    rng, gap = np.random.default_rng(11), 0.15
    gold = rng.normal(size=100_000)
    (a, by_a), (b, by_b) = (
        influence(gold + noise * rng.normal(size=100_000), gold, "spearman") for noise in (0.6, 0.6 + gap)
    )
    predicted = power(a - b, float((by_a - by_b).std()) / 200**0.5, 199)
    require_power(
        "difference of Spearman correlations, 200 items", predicted, share(one.p < LEVEL for one in correlated(gap))
    )


def test_the_detectable_difference_of_a_comparison_is_near_the_designs():
    """Each comparison estimates it from its own 200 items."""
    error, freedom = ONE_LEVEL.truth
    found = [one.detectable for one in comparisons(ONE_LEVEL)]
    assert np.median(found) == pytest.approx(detectable(error, freedom), rel=0.02)
