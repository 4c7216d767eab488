"""The null control of the policy track: the policy as it came."""

from __future__ import annotations

from harness import PolicyProblem, Solution, method


@method(track="policy", role="control")
def untrained(problem: PolicyProblem) -> Solution:
    """The policy with its first weights: what every method starts from."""
    return Solution(model=problem.model)
