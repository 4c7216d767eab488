"""Sparse Knowledge Distillation (2026): a model pruned in small steps, each taught by the one before."""

from __future__ import annotations

import copy
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from harness import BadInput, Batch, Claim, Count, DistillProblem, Fraction, Positive, Solution, Sparse, Weight, method
from harness.parts.softening import Operator
from methods.distillation.teaching import FORWARDS, teach


@method(
    track="distill",
    paper="flouro2026sparse",
    claims=[
        Claim(
            "divergence_from_teacher", "sparse_kd_multistage(stages=1)", "distill-vision", params={"stages": 4},
            paper="n stages pay O(1/n) of the divergence of one (theorem; no figures)",
        )
    ],
)  # fmt: skip
def sparse_kd_multistage(
    problem: DistillProblem,
    *,
    stages: Count = 4,
    sparsity: Fraction = 0.9,
    temperature: Positive = 2.0,
    operator: Operator = "power",
    target: Literal["previous", "original"] = "previous",
    final_share: Fraction = 0.5,
    lr: Positive = 3e-3,
    weight_decay: Weight = 0.0,
) -> Solution:
    """The teacher pruned by global magnitude in stages to `sparsity`, each stage taught by the softened one before.

    Sparsity after stage k of n is s (1 - (1 - k/n)^3); weights once gone stay gone. The last stage has `final_share`
    of the updates, the others equal parts of the rest (the allocation decides the sign of the comparison with
    stages=1). The student is a copy of the teacher, and the problem's own student is not used.
    """
    student = copy.deepcopy(problem.teacher).train().requires_grad_(True)
    prunable = {name: p for name, p in student.named_parameters() if p.ndim > 1}
    teacher: nn.Module = problem.teacher
    log = []
    for stage, steps in enumerate(shares(problem.budget.steps(forwards=FORWARDS), stages, final_share), start=1):
        level = sparsity * (1 - (1 - stage / stages) ** 3)
        masks = largest(prunable, level)
        apply(prunable, masks)
        found = teach(
            problem, temperature, 1.0, operator, lr=lr, weight_decay=weight_decay, model=student, steps=steps,
            answer=partial(answers, problem, teacher), after=partial(_keep, prunable, masks),
        )  # fmt: skip
        log.append({"sparsity": level, "steps": steps, "curve": found.log["curve"]})
        if target == "previous":
            teacher = copy.deepcopy(student).eval().requires_grad_(False)
    return Solution(model=student, stored=stored(student, masks), log={"stages": log, "curve": log[-1]["curve"]})


def shares(total: int, stages: int, final_share: float) -> list[int]:
    """Updates of each stage: the last has its share, the others equal parts of the rest. BadInput for too few."""
    each = round(total * (1 - final_share) / (stages - 1)) if stages > 1 else 0
    parts = [each] * (stages - 1) + [total - each * (stages - 1)]
    if min(parts) < 1:
        raise BadInput(f"stages={stages} with final_share={final_share} leaves a stage without one of {total} updates")
    return parts


def answers(problem: DistillProblem, teacher: nn.Module, batch: Batch) -> Tensor:
    """The logits of a stage's teacher."""
    with torch.no_grad():
        return problem.task.logits(teacher, batch.inputs)


def _keep(weights: dict[str, nn.Parameter], masks: dict[str, Tensor], model: nn.Module, step: int) -> None:
    """After an update: what is gone stays gone."""
    apply(weights, masks)


@torch.no_grad()
def largest(weights: dict[str, nn.Parameter], sparsity: float) -> dict[str, Tensor]:
    """Masks that drop exactly round(sparsity * all) of the weights: the smallest magnitudes over all tensors."""
    flat = torch.cat([p.abs().flatten() for p in weights.values()])
    kept = torch.ones(len(flat), dtype=torch.bool)
    kept[flat.argsort(stable=True)[: round(sparsity * len(flat))]] = False
    parts = kept.split([p.numel() for p in weights.values()])
    return {name: part.view_as(p) for (name, p), part in zip(weights.items(), parts, strict=True)}


@torch.no_grad()
def apply(weights: dict[str, nn.Parameter], masks: dict[str, Tensor]) -> None:
    for name, mask in masks.items():
        weights[name].mul_(mask)


def stored(model: nn.Module, masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a file keeps: of each pruned matrix its values and where they are, and the other tensors as they are."""
    kept: dict[str, Tensor] = {}
    for name, tensor in {**model.state_dict(), **dict(model.named_parameters())}.items():
        if name in masks:
            packed = Sparse.pack(tensor.detach().flatten(1), masks[name].flatten(1), dtype=tensor.dtype)
            kept |= {f"{name}.{part}": value for part, value in packed.tensors().items()}
        elif not any(tensor.data_ptr() == p.data_ptr() for n, p in model.named_parameters() if n in masks):
            kept[name] = tensor.detach()
    return kept
