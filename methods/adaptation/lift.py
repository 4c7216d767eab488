"""LIFT: Low-rank Informed Sparse Fine-Tuning (Liu et al. 2025)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from harness import AdaptProblem, Claim, Count, Positive, Solution, Weight, method
from harness.models.inside import weight_of
from harness.parts import masks
from methods.adaptation.sparse import fit_sparse

TARGET = "cross_entropy(task=target)"
LEARNS = "magnitude masks without rank reduction perform poorly, principal weights better than full fine-tuning"
KEEPS = "keeps up to 20% more of what the source domain needs than full fine-tuning and LoRA"
PAPERS = {"score": "lowrank"}
CLAIMS = [
    claim
    for suite, level in (("adapt-vision", 0.7), ("adapt-lm", 0.05))
    for claim in (
        Claim(TARGET, "lift(score=magnitude)", suite, params=PAPERS, paper=LEARNS),
        Claim(f"forgetting(at={level})", "full", suite, params=PAPERS, paper=KEEPS),
    )
]


@method(track="adapt", paper="liu2025lift", claims=CLAIMS)
def lift(
    problem: AdaptProblem,
    *,
    score: Literal["lowrank", "magnitude", "smallest"] = "lowrank",
    rank: Count = 8,
    refresh: Count = 400,
    lr: Positive = 1e-3,
    weight_decay: Weight = 0.0,
) -> Solution:
    """The weights that are largest after their matrix is truncated to a low rank train, the others stay.

    Chosen are as many as the problem grants, by matrix, anew every `refresh` steps. `rank` is the truncation's (the
    paper: 32 to 128 at a width of 2048 and more; 8 is its ratio at 256). `magnitude` takes the largest weights as they
    are, `smallest` those that are smallest after truncation. The record's `spectrum` is the part of the squared weights
    that the truncation keeps: where it is small, the premise is weak.
    """
    kept = {}
    for name in problem.layers:
        weight = weight_of(problem.model, name).detach().flatten(1)
        kept[name] = float(masks.truncate(weight, rank).square().sum() / weight.square().sum())

    def scored(name: str, weight: Tensor) -> Tensor:
        return masks.score(weight, score, rank=rank)

    solution = fit_sparse(problem, scored, lr=lr, weight_decay=weight_decay, refresh=refresh)
    solution.log["spectrum"] = sum(kept.values()) / len(kept)
    return solution
