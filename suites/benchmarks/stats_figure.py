"""The figure of docs/statistics.md: what pairing gains, and how intervals cover when the seeds are few.

    python -m suites.benchmarks.stats_figure [--experiments 2000] [--out docs/statistics.svg]

Left: power of the paired test and of the z test of two independent samples on the same 200 items, predicted (lines) and
measured (points); items' scores differ from each other twice as much as their differences between methods do. Right:
coverage of the 95% interval over seeds and many items, by quadrature.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import special, stats

from harness.stats import ScoreSet, compare_all
from harness.stats.power import power
from harness.stats.resample import combined_freedom

ITEMS, SPREAD = 200, 2.0
PAIRED, UNPAIRED = 1 / ITEMS**0.5, (2 * (SPREAD**2 + 0.25) / ITEMS) ** 0.5
"""The standard error of the mean difference, and what the unpaired test takes for it."""
BATCH = 200
Freedom = Callable[[Sequence[tuple[float, int]], int], float]


def satterthwaite(parts: Sequence[tuple[float, int]], fewest: int) -> float:
    """The rule that takes the shares of the variance as if they were known."""
    return max(1 / sum(min(share, 1.0) ** 2 / freedom for share, freedom in parts), float(fewest))


def coverage(seeds: int, share: float, cell: float, freedom: Freedom = combined_freedom) -> float:
    """Coverage of the 95% t interval over seeds and very many items, by quadrature over the spread of the seeds.

    The variance of the mean is that of the items, 1, of the cells, `cell`, and of the seeds, which make `share` of it.
    With so many items only the mean square of the seeds is uncertain: it is chi-squared.
    """
    nodes, weights = np.polynomial.legendre.leggauss(200)
    items = 1 + cell
    of_seeds = share / (1 - share) * items
    found = 0.0
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        seen = (of_seeds + cell) * special.chdtri(seeds - 1, 1 - node) / (seeds - 1)
        total = max(seen + items - cell, cell)
        parts = ((seen / total, seeds - 1), (items / total, 10**9), (cell / total, 10**9))
        half_width = special.stdtrit(freedom(parts, seeds - 1), 0.975) * total**0.5
        found += weight * special.erf(half_width / (2 * (of_seeds + items)) ** 0.5)
    return float(found)


def measured_power(shift: float, experiments: int, rng: np.random.Generator) -> tuple[float, float]:
    """Share of experiments in which the paired test and the z test find the difference."""
    ids, hits = tuple(f"{at:04d}" for at in range(ITEMS)), np.zeros(2)
    for batch in range(experiments // BATCH):
        d = shift + rng.normal(size=(BATCH, ITEMS))
        item = SPREAD * rng.normal(size=(BATCH, ITEMS))
        sets = {str(k): ScoreSet(ids, one[None], (0,)) for k, one in enumerate(d)}
        found = compare_all(
            sets, ScoreSet(ids, np.zeros((1, ITEMS)), (0,)), resamples=1000, seed=batch, correction="none"
        )
        hits[0] += sum(one.p < 0.05 for one in found.values())
        a, b = item + d / 2, item - d / 2
        z = d.mean(1) / np.sqrt((a.var(1, ddof=1) + b.var(1, ddof=1)) / ITEMS)
        hits[1] += (np.abs(z) > stats.norm.isf(0.025)).sum()
    return float(hits[0] / experiments), float(hits[1] / experiments)


def draw(experiments: int, out: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "statistics", "svg.fonttype": "none", "font.size": 9}
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    shifts = np.linspace(0, 0.6, 61)
    left.plot(shifts, [power(s, PAIRED, ITEMS - 1) for s in shifts], color="tab:blue", label="paired permutation test")
    beyond = stats.norm.isf(0.025) * UNPAIRED
    found = stats.norm.sf(beyond, shifts, PAIRED) + stats.norm.cdf(-beyond, shifts, PAIRED)
    left.plot(shifts, found, color="tab:red", label="unpaired z test")
    rng = np.random.default_rng(0)
    points = np.array([(s, *measured_power(s, experiments, rng)) for s in (0.0, 0.1, 0.2, 0.3, 0.45, 0.6)])
    left.plot(points[:, 0], points[:, 1], "o", color="tab:blue")
    left.plot(points[:, 0], points[:, 2], "s", color="tab:red")
    for shift, paired, unpaired in points:
        print(f"difference {shift:.2f}: paired {paired:.1%}, unpaired {unpaired:.1%}")
    left.set(xlabel="true difference, in standard deviations of the differences", ylabel="power at the 5% level")
    left.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.16), ncols=2)

    shares = np.append(np.linspace(0, 0.99, 67), 0.999)
    right.axhspan(0.935, 0.965, color="0.9", lw=0)
    for seeds, color in ((2, "tab:orange"), (3, "tab:green"), (5, "tab:purple")):
        ours, plain = ([coverage(seeds, s, 0.25, rule) for s in shares] for rule in (combined_freedom, satterthwaite))
        right.plot(shares, ours, color=color, label=f"{seeds} seeds")
        right.plot(shares, plain, color=color, ls="--")
    right.plot([], [], color="0.4", ls="--", label="Satterthwaite's rule")
    right.set(
        xlabel="share of the seeds in the variance of the mean", ylabel="coverage of the 95% interval", ylim=(0.86, 1)
    )
    right.legend(frameon=False, loc="lower left", ncols=2)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("docs/statistics.svg"))
    options = parser.parse_args()
    draw(options.experiments, options.out)


if __name__ == "__main__":
    main()
