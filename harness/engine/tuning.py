"""Tuning: the same number of tries for every method, chosen on the development split, charged to the trial's cost.

The first try is the method's defaults; the others are drawn, without repetition, from its space: a grid of factors on
the default of `lr` and of `weight_decay`, the same for all methods, and whatever more a method declares
(`@method(..., tune={"rank": (4, 8)})`). A parameter that the suite sets is not tuned. Every try is a whole solution on
the trial's own problem and seed, so what tuning costs in noise is in the table's intervals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.engine.plan import FACTORS, Trial
from harness.engine.tracks import Track
from harness.errors import BadInput, TrialFailed
from harness.registry import Entry

FIRST_DECAY = 0.01
"""Takes the place of a default weight decay of 0, which has no multiples."""


@dataclass(frozen=True)
class Tuned:
    """The try that did best on the development split, and all tries: their parameters and score (None: failed)."""

    problem: Any
    solution: Any
    tried: list[dict[str, Any]]


def tune(entry: Entry, track: Track, trial: Trial, build: Callable[[str], Any]) -> Tuned:
    """Solve the trial's problem with as many parameters as its `tuning` says. `build(place)` makes it anew.

    A method with fewer points than tries has no more of them. Raises TrialFailed when no try succeeded.
    """
    tried: list[dict[str, Any]] = []
    best, least = None, math.inf
    for place, params in enumerate(itertools.islice(candidates(entry, trial), int(trial.spec["tuning"]))):
        row: dict[str, Any] = {"params": {k: v for k, v in params.items() if v != trial.point.params[k]}, "score": None}
        tried.append(row)
        try:
            problem = build(f"try-{place}")
            solution = track.solve(entry, problem, params)
            score = float(track.develop(problem, solution))
        except (TrialFailed, ArithmeticError, np.linalg.LinAlgError) as error:
            row["reason"] = " ".join(str(error).split())
            continue
        if math.isfinite(score):
            row["score"] = score
        if score < least:
            best, least = (problem, solution), score
    if best is None:
        raise TrialFailed(f"all {len(tried)} tries of tuning failed; the first: {tried[0].get('reason', 'no score')}")
    return Tuned(*best, tried)


def candidates(entry: Entry, trial: Trial) -> Iterator[dict[str, Any]]:
    """Complete parameters: the trial's own first, then the points of the space in an order drawn from the seed."""
    start = dict(trial.point.params)
    axes = space(entry, given=trial.point.given)
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    yield start
    for at in np.random.default_rng(trial.seed).permutation(len(points)):
        if (params := {**start, **points[at]}) != start:
            yield params


def space(entry: Entry, given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values of every parameter that is tuned."""
    axes: dict[str, list[Any]] = {}
    for name, factors in FACTORS.items():
        if name in entry.params and name not in given:
            default = float(entry.params[name].default) or FIRST_DECAY
            axes[name] = _accepted(entry, name, [float(f"{default * factor:.6g}") for factor in factors])
    axes |= {name: _accepted(entry, name, values) for name, values in entry.tune.items() if name not in given}
    return axes


def _accepted(entry: Entry, name: str, values: Any) -> list[Any]:
    """The values that the parameter's range takes."""
    kept = []
    for value in values:
        try:
            kept.append(entry.params[name].check(value, entry.name))
        except BadInput:
            continue
    return kept
