"""Single Path One-Shot (Guo et al. 2020): a supernet trained on one uniformly drawn architecture at a time."""

from __future__ import annotations

from harness import Count, Fraction, Positive, SearchProblem, Solution, Weight, method
from methods.search.ranking import chosen, rank, shared, train_supernet


@method(track="search", paper="guo2020single")
def spos(
    problem: SearchProblem,
    *,
    paths: Count = 1,
    candidates: Count = 64,
    retrain: Fraction = 0.5,
    lr: Positive = 3e-3,
    weight_decay: Weight = 0.01,
) -> Solution:
    """A supernet trained on uniformly drawn paths; the best on dev with inherited weights is trained alone.

    An update takes `paths` architectures; a part `retrain` of the budget trains the chosen one (0: it keeps the
    supernet's weights). Candidates are drawn at random, where the paper's evolution starts.
    """
    steps, alone = shared(problem, retrain, paths)
    train_supernet(
        problem, lambda batch: [problem.space.draw(problem.generator) for _ in range(paths)], steps, paths=paths,
        lr=lr, weight_decay=weight_decay,
    )  # fmt: skip
    return chosen(problem, rank(problem, problem.draw(candidates), alone), alone, lr=lr, weight_decay=weight_decay)
