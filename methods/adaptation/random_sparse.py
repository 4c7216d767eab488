"""The null control of sparse fine-tuning: as many weights of each layer, drawn at random."""

from __future__ import annotations

from harness import AdaptProblem, Positive, Solution, Weight, method
from harness.parts import masks
from methods.adaptation.sparse import fit_sparse


@method(track="adapt", role="control")
def random_sparse(problem: AdaptProblem, *, lr: Positive = 1e-3, weight_decay: Weight = 0.0) -> Solution:
    """Weights drawn at random train, as many of each layer as a chosen mask has."""
    return fit_sparse(
        problem,
        lambda name, weight: masks.score(weight, "random", generator=problem.generator),
        lr=lr,
        weight_decay=weight_decay,
    )
