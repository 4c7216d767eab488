"""The null control of kd_aif: the same weights, each on another sample."""

from __future__ import annotations

from harness import DistillProblem, Fraction, Positive, Solution, Weight, method
from methods.distillation.kd_aif import adapted


@method(track="distill", role="control")
def kd_permuted_weights(
    problem: DistillProblem,
    *,
    temperature: Positive = 2.0,
    alpha: Fraction = 0.5,
    warm: Fraction = 0.3,
    lr: Positive = 3e-3,
    weight_decay: Weight = 0.01,
) -> Solution:
    """`kd_aif` with its weights permuted at random over the training samples."""
    options = {"temperature": temperature, "alpha": alpha, "lr": lr, "weight_decay": weight_decay}
    return adapted(problem, warm, "cg", 0.01, 50, options, permute=True)
