"""Differentiable quantization (Polino et al. 2018): the points that weights are rounded to are what is learned."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from harness import BadInput, Batch, Claim, Count, DistillProblem, Fraction, Positive, Solution, Weight, method
from harness.params import Bits
from harness.train import optimizers
from methods.distillation.buckets import (
    Points,
    at_quantiles,
    evenly,
    keep_rounded,
    quantized_layers,
    rounded_layers,
    scaled_weight,
)
from methods.distillation.quantized_distillation import WIDEST
from methods.distillation.teaching import FORWARDS, teach

CLAIMS = [
    Claim(
        "accuracy", "quantized_distillation(rounded=after)", "distill-vision",
        paper="a distilled student keeps its accuracy where its points are learned",
    ),
]  # fmt: skip


@method(track="distill", paper="polino2018model", claims=CLAIMS, tune={"points_lr": (1e-5, 1e-4, 1e-3, 1e-2)})
def differentiable_quantization(
    problem: DistillProblem,
    *,
    bits: Bits = 4,
    bucket: Count = 256,
    temperature: Positive = 2.0,
    alpha: Fraction = 0.7,
    full: Fraction = 0.5,
    start: Literal["quantiles", "even"] = "quantiles",
    ends: bool = True,
    points_lr: Positive = 1e-5,
    lr: Positive = 0.1,
    weight_decay: Weight = 2.2e-4,
    momentum: Fraction = 0.9,
) -> Solution:
    """A distilled student keeps its weights; where the points lie that they are rounded to follows the gradient.

    The part `full` of the budget distills the student in full precision; it is then what is rounded, and the teacher
    of its rounded self. Each layer's 2^bits points start at the quantiles of its scaled weights; a point's gradient is
    the sum of those of the weights assigned to it, each times its bucket's range; points are sorted after every step,
    and weights assigned anew (section 4). `points_lr` is the released code's. Without the optional allocation of more
    points to layers of larger gradients. Raises BadInput for 16 bits.
    """
    if bits > WIDEST:
        raise BadInput(f"differentiable_quantization: bits={bits} is not accepted; it takes 1 to {WIDEST}")
    model, total = problem.model, problem.budget.steps(forwards=FORWARDS)
    first = min(max(1, round(full * total)), total - 1)
    sgd = optimizers.sgd(lr, weight_decay, momentum)
    curve = teach(
        problem, temperature, alpha, lr=lr, weight_decay=weight_decay, optimizer=sgd, steps=first
    ).log["curve"]  # fmt: skip
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    points = {}
    for name in quantized_layers(model, ends=ends):
        first_points = evenly(bits) if start == "even" else at_quantiles(scaled_weight(model, name, bucket), bits)
        points[name] = Points(first_points, bucket, learned=True)
    rounded_layers(model, points)

    def answers(batch: Batch) -> Tensor:
        with torch.no_grad():
            return problem.task.logits(teacher, batch.inputs)

    def sort(model: nn.Module, step: int) -> None:
        with torch.no_grad():
            for one in points.values():
                one.points.copy_(one.points.sort().values)

    solution = teach(
        problem, temperature, alpha, lr=points_lr, weight_decay=0.0, trains=lambda name: name.endswith(".points"),
        optimizer=optimizers.sgd(points_lr, 0.0, momentum), answer=answers, after=sort,
    )  # fmt: skip
    later = [{**row, "step": row["step"] + first} for row in solution.log["curve"]]
    solution.log["curve"] = [*curve, *later]
    solution.stored = keep_rounded(model, points)
    return solution
