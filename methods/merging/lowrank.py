"""Experts as low-rank changes of a base, and the baseline that keeps each of them cut to a rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from harness import Count, MergeProblem, Solution, method
from harness.parts.singular import truncated
from harness.parts.statedict import State, axpy, sub


class Factors(NamedTuple):
    """What an expert changed: of each matrix, seen as (m, d), the factors left (m, r) and right (r, d); of every other
    tensor all."""

    left: State
    right: State
    rest: State


def factored(state: Mapping[str, Tensor], base: Mapping[str, Tensor], rank: int) -> Factors:
    """An expert's change, its matrices (convolutions as (out, in * k * k)) cut to a rank: the best of that rank."""
    change = sub(state, base)
    matrices = [name for name, tensor in change.items() if tensor.ndim > 1]
    pairs = {name: truncated(change[name].flatten(1), rank) for name in matrices}
    left = {name: pair[0].float() for name, pair in pairs.items()}
    right = {name: pair[1].float() for name, pair in pairs.items()}
    return Factors(left, right, {name: tensor for name, tensor in change.items() if name not in pairs})


def restored(base: Mapping[str, Tensor], factors: Factors) -> State:
    """The base with a change put back."""
    change = {name: (left @ factors.right[name]).view(base[name].shape) for name, left in factors.left.items()}
    return axpy(base, [(1.0, change | factors.rest)])


@method(track="merge")
def truncated_experts(problem: MergeProblem, *, rank: Count = 8) -> Solution:
    """Each task's own change, cut to a rank by its singular values, and stored beside the base.

    The fair baseline of recoverable merging: with n tasks, `rank` (p (r + n) + r) / n stores as much as `rmm` of rank r
    with p components.
    """
    base = problem.based()
    kept = {expert.task: factored(expert.state, base, rank) for expert in problem.experts}
    stored = {f"base.{name}": tensor for name, tensor in base.items()}
    for task, factors in kept.items():
        for side, tensors in factors._asdict().items():
            stored |= {f"{task}.{side}.{name}": tensor for name, tensor in tensors.items()}
    return Solution(model=lambda task: problem.load(restored(base, kept[task])), stored=stored)
