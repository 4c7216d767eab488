"""The front of bits against loss, and how sure it is who is on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.errors import BadInput
from harness.stats.resample import bootstrap_means
from harness.stats.scoreset import ScoreSet, require_pairable, require_same_seeds
from harness.stats.verdict import score_units


@dataclass(frozen=True)
class Membership:
    """Whether a method is on the front as measured, and the share of resamples in which it is."""

    on_front: bool
    confidence: float


def pareto_front(
    costs: Mapping[str, float], sets: Mapping[str, ScoreSet], *, resamples: int = 10_000, seed: int = 0
) -> dict[str, Membership]:
    """Which methods no other beats in both cost (bits, known exactly) and score (resampled over items and seeds).

    All methods see the same resamples, so that what is shared by their scores cancels. A method is beaten by one that
    is no worse in both and better in one. Methods with a confidence above 0.05 are the 95% region of the front.
    Raises BadInput where the scores cannot be paired or a method has no cost.
    """
    if not sets:
        return {}
    missing = sorted(set(sets) ^ set(costs))
    if missing:
        raise BadInput(f"method {missing[0]!r} needs both a cost and scores")
    first, *others = sets
    for name in others:
        require_pairable(sets[first], sets[name], first, name)
        require_same_seeds(sets[first], sets[name], first, name)
    aligned = {name: one.on_seeds(sets[first].seeds) for name, one in sets.items()}
    pairs = [score_units(one) for one in aligned.values()]
    losses = np.column_stack([[one.estimate for one in pairs], bootstrap_means(pairs, resamples, seed)])
    if sets[first].higher_is_better:
        losses = -losses
    on_front = undominated(np.array([costs[name] for name in sets]), losses)
    return {name: Membership(bool(row[0]), float(row[1:].mean())) for name, row in zip(sets, on_front, strict=True)}


def undominated(costs: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Where (methods, resamples) losses at (methods,) costs are on the front."""
    on_front = np.empty(losses.shape, dtype=bool)
    for i, cost in enumerate(costs):
        cheaper = losses[costs < cost].min(0, initial=np.inf)
        as_cheap = losses[costs == cost].min(0)
        on_front[i] = (losses[i] < cheaper) & (losses[i] <= as_cheap)
    return on_front
