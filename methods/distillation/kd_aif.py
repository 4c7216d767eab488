"""Knowledge Distillation with Adapted Weight (2025): samples count by how much they help the validation loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness import Claim, Count, DistillProblem, Fraction, Positive, Solution, TrialFailed, Weight, method
from harness.parts.influence import Solver, helpfulness, output_layer
from methods.distillation.teaching import FORWARDS, teach


@method(
    track="distill",
    paper="wu2025kdaif",
    claims=[
        Claim("accuracy", "kd(operator=power)", "distill-vision", paper="above KD on CIFAR-100 and GLUE (abstract)"),
        Claim("accuracy", "kd_permuted_weights", "distill-vision", paper="the same weights, each on another sample"),
    ],
)
def kd_aif(
    problem: DistillProblem,
    *,
    temperature: Positive = 2.0,
    alpha: Fraction = 0.5,
    warm: Fraction = 0.3,
    solver: Solver = "cg",
    damping: Positive = 0.01,
    iterations: Count = 50,
    lr: Positive = 3e-3,
    weight_decay: Weight = 0.01,
) -> Solution:
    """Distillation weighted by influence: exp of each sample's helpfulness to the development loss, scaled to [-1, 1].

    The student is taught with equal weights for a part `warm` of the updates, the influence of every training sample is
    computed on its output layer, and it is taught on with the weights (computed once). The released notebook leaves out
    T^2 and confuses the sign of the influence; this is the intended form, with labels and teacher in equal parts.
    """
    options: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
    options |= {"temperature": temperature, "alpha": alpha}
    return adapted(problem, warm, solver, damping, iterations, options)


def adapted(
    problem: DistillProblem,
    warm: float,
    solver: Solver,
    damping: float,
    iterations: int,
    options: dict[str, Any],
    permute: bool = False,
) -> Solution:
    """Teach, weigh, teach on. `permute`: each weight goes to another sample, for the null control."""
    task, student = problem.task, problem.student
    budget, read = problem.budget, len(task.train) + len(task.dev)
    total = min(budget.steps(), (budget.granted.forward - read) // (FORWARDS * budget.batch))
    first = max(1, round(warm * total))
    teach(problem, **options, steps=first)
    train, validation = (output_layer(task, student, split) for split in (task.train, task.dev))
    helps = helpfulness(train, validation, solver=solver, damping=damping, steps=iterations)
    weights = adapted_weights(helps).float()
    if not weights.isfinite().all():
        raise TrialFailed("the influence of some samples is not finite; take a larger damping")
    if permute:
        weights = weights[torch.randperm(len(weights), generator=problem.generator)]
    left = problem.budget.steps(forwards=FORWARDS)
    solution = teach(problem, **options, steps=left, weights=weights) if left else Solution(model=student)
    marks = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    solution.log |= {"weight_quantiles": weights.quantile(marks).tolist(), "warm_steps": first, "weighted_steps": left}
    return solution


def adapted_weights(helps: Tensor) -> Tensor:
    """exp of the helpfulness (N,) scaled linearly to [-1, 1]: in [1/e, e]; 1 where all are alike."""
    low, high = helps.min(), helps.max()
    if high == low:
        return torch.ones_like(helps)
    return (2 * (helps - low) / (high - low) - 1).exp()
