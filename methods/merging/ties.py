"""TIES: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models" (2023)."""

from __future__ import annotations

from harness import Fraction, MergeProblem, Solution, Weight, method
from harness.parts.statedict import axpy, elected, sub, trimmed


@method(
    track="merge",
    paper="yadav2023ties",
    tune={"scaling": (0.3, 0.5, 0.7, 1.0, 1.3, 1.6, 2.0), "density": (0.1, 0.2, 0.5)},
)
def ties(problem: MergeProblem, *, density: Fraction = 0.2, scaling: Weight = 1.0) -> Solution:
    """Task vectors are trimmed to their largest numbers, and averaged over those that agree on the sign.

    Algorithm 1: of each task vector the part `density` of largest magnitude stays; at each place the sign of the sum is
    elected; the mean over the vectors of that sign is added to the base, `scaling` times.
    """
    base = problem.based()
    vectors = [trimmed(sub(expert.state, base), density) for expert in problem.experts]
    return Solution(model=problem.load(axpy(base, [(scaling, elected(vectors))])))
