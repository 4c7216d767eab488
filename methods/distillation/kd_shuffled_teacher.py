"""The null control of distillation: the teacher's answers, each given to another sample."""

from __future__ import annotations

import torch
from torch import Tensor

from harness import Batch, DistillProblem, Fraction, Positive, Solution, Weight, method
from methods.distillation.teaching import teach


@method(track="distill", role="control")
def kd_shuffled_teacher(
    problem: DistillProblem,
    *,
    temperature: Positive = 2.0,
    alpha: Fraction = 0.9,
    lr: Positive = 3e-3,
    weight_decay: Weight = 0.01,
) -> Solution:
    """`kd` with the teacher's answers shuffled within each batch: as soft, and about nothing."""

    def answer(batch: Batch) -> Tensor:
        order = torch.randperm(len(batch.rows), generator=problem.generator)
        return problem.targets(batch.inputs[order])

    return teach(problem, temperature, alpha, lr=lr, weight_decay=weight_decay, answer=answer)
