"""LoRA: Low-Rank Adaptation of Large Language Models (Hu et al. 2022)."""

from __future__ import annotations

from harness import AdaptProblem, Count, Positive, Solution, Weight, method
from harness.parts.adapters import LoRA
from methods.adaptation.attached import fit_adapters, fitting


@method(track="adapt", paper="hu2022lora")
def lora(
    problem: AdaptProblem,
    *,
    rank: Count | None = None,
    scale: Positive = 2.0,
    lr: Positive = 1e-3,
    weight_decay: Weight = 0.0,
) -> Solution:
    """A product of two thin matrices is added to each layer of the body.

    The change is `scale` times B A (the paper's alpha / rank, here 2 for every rank). Without a `rank`, the one whose
    trainable numbers, rank * (outputs + inputs) a layer, are nearest to what the problem grants.
    """
    shapes = problem.shapes()
    ranks = range(1, min(map(min, shapes.values())) + 1) if rank is None else [rank]
    chosen = fitting(problem, "rank", ranks, LoRA.count)
    return fit_adapters(
        problem,
        lambda name, shape: LoRA(shape, chosen.choice, scale, problem.generator),
        chosen,
        lr=lr,
        weight_decay=weight_decay,
    )
