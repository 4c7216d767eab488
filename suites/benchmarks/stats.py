"""Paired statistics of a whole table, and its one-level intervals against as many calls of scipy.stats.bootstrap.

    python -m suites.benchmarks.stats [--methods 50] [--items 10000] [--seeds 10] [--resamples 10000] [--calls 50]

The table: every method against the baseline over seeds and items (intervals, tests, verdicts). The one-level job: the
intervals of the same number of methods over items alone; scipy's calls are timed in the same run, in rounds between
ours, so that a slow minute of the machine falls on both. With fewer calls than methods their mean is scaled up. The
processor's time, of all threads, stands beside the time that passed: it is the steadier of the two where others work.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.stats
from threadpoolctl import threadpool_limits

from harness.stats import ScoreSet, compare_all, intervals


def scores(methods: int, seeds: int, items: int) -> dict[str, ScoreSet]:
    """Log-likelihood-like scores: items differ most, then methods within items, then seeds."""
    rng = np.random.default_rng(0)
    item = 2 + rng.gamma(2, 0.5, size=items)
    ids = tuple(f"item{i:06d}" for i in range(items))
    return {
        f"method {m}": ScoreSet(
            ids,
            item + 0.002 * m + 0.1 * rng.normal(size=items) + 0.05 * rng.normal(size=(seeds, items)),
            tuple(range(seeds)),
        )
        for m in range(methods)
    }


def timed(function: Callable[[], Any]) -> tuple[np.ndarray, Any]:
    """((seconds passed, seconds of processor time), what the function gives)."""
    start = np.array([time.perf_counter(), time.process_time()])
    result = function()
    return np.array([time.perf_counter(), time.process_time()]) - start, result


def table(options: argparse.Namespace) -> None:
    """The two-level job."""
    every = scores(options.methods + 1, options.seeds, options.items)
    baseline = every.pop("method 0")
    seconds = [
        timed(lambda: compare_all(every, baseline, margin=0.01, resamples=options.resamples))[0]
        for _ in range(options.rounds)
    ]
    wall, cpu = np.min(seconds, axis=0)
    print(
        f"{options.methods} methods against a baseline, {options.seeds} seeds x {options.items} items, "
        f"{options.resamples} resamples: {wall:.2f} s passed, {cpu:.2f} s of processor time (best of {options.rounds})"
    )


def one_level(options: argparse.Namespace) -> None:
    """The one-level job, ours and scipy's in turn, and how far their limits differ."""
    sets = {
        name: replace(one, values=one.values[:1], seeds=(0,))
        for name, one in scores(options.methods, 1, options.items).items()
    }
    rng = np.random.default_rng(1)
    ours, theirs, apart = [], [], []
    calls = list(sets.items())[: options.calls]
    for part in np.array_split(np.arange(len(calls)), options.rounds):
        seconds, found = timed(lambda: intervals(sets, resamples=options.resamples))
        ours.append(seconds)
        for name, one in (calls[i] for i in part):
            seconds, result = timed(
                lambda one=one: scipy.stats.bootstrap(
                    one.values, np.mean, n_resamples=options.resamples, batch=100, rng=rng
                )
            )
            theirs.append(seconds)
            error = one.values.std() / options.items**0.5
            limits = result.confidence_interval
            apart += [(found[name].low - limits.low) / error, (found[name].high - limits.high) / error]
    totals = np.array([np.median(ours, axis=0), np.mean(theirs, axis=0) * options.methods])
    for at, name in enumerate(("passed", "of processor time")):
        own, other = totals[:, at]
        print(f"one level, {options.methods} methods: {own:.2f} s {name}; scipy {other:.1f} s; ratio {other / own:.1f}")
    print(
        f"limits differ by {np.std(apart):.3f} standard errors of the mean (root mean square; at most "
        f"{np.abs(apart).max():.3f}); two draws of as many resamples by {monte_carlo(options.resamples):.3f}"
    )


def monte_carlo(resamples: int) -> float:
    """Standard deviation of the difference of two bootstrap limits, in standard errors of a normal mean."""
    density = scipy.stats.norm.pdf(scipy.stats.norm.ppf(0.025))
    return float(np.sqrt(2 * 0.025 * 0.975 / resamples) / density)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    given = (("methods", 50), ("items", 10_000), ("seeds", 10), ("resamples", 10_000), ("calls", 50), ("threads", 2))
    for name, value in (*given, ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with threadpool_limits(options.threads):
        table(options)
        one_level(options)


if __name__ == "__main__":
    main()
