"""One choice for each of several places, at the least total score within limits on total costs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

Table = Sequence[Sequence[float]]
"""A number for each choice of each place; places may have different numbers of choices."""


def select(scores: Table, costs: Mapping[str, Table], limits: Mapping[str, float]) -> list[int] | None:
    """The choice of each place that minimizes the sum of scores with every cost's sum within its limit; None if there
    is none.

    An integer program with a binary variable for each place and choice, solved exactly by HiGHS. Choices whose score is
    not finite are never taken.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    places = [place for place, row in enumerate(scores) for _ in row]
    values = np.array([score for row in scores for score in row], dtype=float)
    usable = np.isfinite(values)
    once = np.array([[float(place == at) for place in places] for at in range(len(scores))])
    constraints = [LinearConstraint(once, 1, 1)]
    for name, table in costs.items():
        row = np.array([cost for row in table for cost in row], dtype=float)
        # Costs of very different sizes would be lost in the solver's tolerance.
        scale = max(1.0, float(np.abs(row).max()))
        constraints.append(LinearConstraint(row[None] / scale, -np.inf, limits[name] / scale))
    found = milp(
        np.where(usable, values, 0.0),
        constraints=constraints,
        integrality=np.ones(len(values)),
        bounds=Bounds(0, usable.astype(float)),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        return None
    taken = iter(np.round(found.x).astype(bool))
    return [next(at for at, one in enumerate([next(taken) for _ in row]) if one) for row in scores]


def greedy(scores: Table, costs: Table, limit: float) -> list[int] | None:
    """From the best-scored choice of every place, the change that saves most for the least score, until the sum of
    costs is within the limit; None if it never is. The baseline of `select`, with one cost."""
    chosen = [min(range(len(row)), key=row.__getitem__) for row in scores]
    while sum(row[at] for row, at in zip(costs, chosen, strict=True)) > limit:
        changes = [
            ((scores[place][other] - scores[place][at]) / (costs[place][at] - costs[place][other]), place, other)
            for place, at in enumerate(chosen)
            for other in range(len(scores[place]))
            if costs[place][other] < costs[place][at]
        ]
        if not changes:
            return None
        _, place, other = min(changes)
        chosen[place] = other
    return chosen


def exhaustive(scores: Table, costs: Mapping[str, Table], limits: Mapping[str, float]) -> list[int] | None:
    """`select` by trying everything, for tests."""
    best, least = None, np.inf
    for chosen in itertools.product(*(range(len(row)) for row in scores)):
        total = sum(row[at] for row, at in zip(scores, chosen, strict=True))
        within = all(
            sum(row[at] for row, at in zip(table, chosen, strict=True)) <= limits[name] for name, table in costs.items()
        )
        if within and total < least:
            best, least = list(chosen), total
    return best
