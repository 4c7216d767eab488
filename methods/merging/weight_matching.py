"""Merging after weight matching (Ainsworth et al., "Git Re-Basin", 2023), analysed by Ito et al., "Analysis of Linear
Mode Connectivity via Permutation-Based Weight Matching" (2025)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from harness import Claim, Count, MergeProblem, Solution, method
from harness.parts import permutation
from harness.parts.batchnorm import has_batchnorm, recalibrate
from harness.parts.permutation import PermSpec, Permutations
from harness.parts.singular import alignment
from harness.parts.statedict import State, global_norm, mean, sub

GAMMAS = (0.0, 0.3, 0.5)
"""Parts of the largest singular value beyond which singular vectors are compared."""


@method(
    track="merge",
    paper="ito2025lmc",
    claims=[
        Claim(metric=metric, than=than, suite="merge-rebasin", paper=paper)
        for metric, than, paper in (
            ("barrier", "average", "lower loss barrier after matching, MLP, VGG and ResNet on MNIST to ImageNet"),
            ("accuracy", "average", "the midpoint after matching does what its ends do"),
            ("accuracy", "random_permutation", "it is the permutation that matters"),
        )
    ],
)
def weight_matching(problem: MergeProblem, *, restarts: Count = 5, sweeps: Count = 100) -> Solution:
    """The hidden units of each model are permuted to lie near the first model's, and the weights averaged.

    The best of `restarts` descents of at most `sweeps` sweeps over the layers. `log` has, for each model, the distance
    to the first (L2) and how far the singular vectors pair up, R(gamma), before and after (1: the same pairs; about 0:
    unrelated). The running statistics of batch norm are computed anew from training data, within the budget.
    """
    return _aligned(
        problem,
        lambda spec, first, state: permutation.weight_matching(
            spec, first, state, problem.generator, sweeps=sweeps, restarts=restarts
        ),
    )


@method(track="merge", role="control")
def random_permutation(problem: MergeProblem) -> Solution:
    """Units of all models but the first are permuted at random before averaging: the null control of matching."""
    return _aligned(problem, lambda spec, first, state: permutation.random_permutations(spec, problem.generator))


def _aligned(problem: MergeProblem, align: Callable[[PermSpec, State, State], Permutations]) -> Solution:
    spec = permutation.spec_of(problem.model)
    ends: list[State] = []
    rows = []
    for expert in problem.experts:
        if not ends:
            ends.append(expert.state)
            continue
        moved = permutation.apply(spec, align(spec, ends[0], expert.state), expert.state)
        rows.append({"before": report(spec, ends[0], expert.state), "after": report(spec, ends[0], moved)})
        ends.append(moved)
    model = problem.load(mean(ends))
    if has_batchnorm(model):
        problem.budget.watch(model)
        batches = problem.task.batches(problem.budget.batch, problem.seed())
        recalibrate(model, (batches(at).inputs for at in range(problem.budget.steps())))
    return Solution(model=model, log={"aligned": rows}, extra={"ends": ends})


def report(spec: PermSpec, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, float]:
    """The L2 distance of two networks, and R(gamma) over the weights that permutations move, for each gamma."""
    weights = [name for name in spec.moved if a[name].ndim > 1]
    found = {"l2": global_norm(sub(b, a))}
    for gamma in GAMMAS:
        pairs = [alignment(a[name].flatten(1), b[name].flatten(1), gamma) for name in weights]
        found[f"R({gamma})"] = sum(value for value, _ in pairs) / sum(count for _, count in pairs)
    return found
