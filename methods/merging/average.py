"""The average of the experts' weights (Wortsman et al. 2022, "Model soups", the uniform soup), the merge baseline."""

from __future__ import annotations

from harness import MergeProblem, Solution, method
from harness.parts.statedict import mean


@method(track="merge", paper="wortsman2022soups")
def average(problem: MergeProblem) -> Solution:
    """Every weight is the mean of the experts'."""
    return Solution(model=problem.load(mean(expert.state for expert in problem.experts)))
