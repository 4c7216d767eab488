"""The null control of the policy track: the policy as it came."""

from __future__ import annotations

from harness import PolicyProblem, Solution, method


@method(track="policy", role="control")
def untrained(problem: PolicyProblem) -> Solution:
    """The policy with its first weights, rolled out as often as it would be trained: what every method starts from."""
    for _ in range(problem.updates):
        problem.rollout()
    return Solution(model=problem.model)
