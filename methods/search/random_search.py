"""Random search: architectures drawn at random, each trained alone, the best kept (Li and Talwalkar 2019)."""

from __future__ import annotations

from harness import BadInput, Count, Positive, SearchProblem, Solution, Weight, method
from harness.tracks.search import predictions
from methods.search.ranking import development_loss, trained


@method(track="search", paper="li2019random")
def random_search(
    problem: SearchProblem, *, trainings: Count = 4, lr: Positive = 3e-3, weight_decay: Weight = 0.01
) -> Solution:
    """Architectures drawn at random, trained alone with equal parts of the budget; the best on dev is kept."""
    each = problem.budget.steps() // trainings
    if each < 1:
        raise BadInput(f"trainings={trainings}: the budget of {problem.budget.steps()} updates leaves none for each")
    scores, kept, least = {}, Solution(), float("inf")
    for arch in problem.draw(trainings):
        found = trained(problem, arch, each, lr=lr, weight_decay=weight_decay)
        loss = development_loss(problem, found.model_for())
        scores[arch] = -loss
        if loss < least or kept.arch is None:
            kept, least = found, loss
            kept.arch = arch
    kept.log |= {"predicted": predictions(problem.space, scores), "arch": problem.space.name(kept.arch)}
    return kept
