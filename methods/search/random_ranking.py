"""The null control of ranking: architectures in a random order."""

from __future__ import annotations

from harness import Count, Positive, SearchProblem, Solution, Weight, method
from methods.search.ranking import chosen


@method(track="search", role="control")
def random_ranking(
    problem: SearchProblem, *, candidates: Count = 64, lr: Positive = 3e-3, weight_decay: Weight = 0.01
) -> Solution:
    """Architectures in a random order; the first is trained with the whole budget."""
    scores = {arch: -float(place) for place, arch in enumerate(problem.draw(candidates))}
    return chosen(problem, scores, problem.budget.steps(), lr=lr, weight_decay=weight_decay)
