"""Knowledge distillation (Hinton et al. 2015): the student learns the teacher's softened answers."""

from __future__ import annotations

from harness import DistillProblem, Fraction, Positive, Solution, Weight, method
from harness.parts.softening import Operator
from methods.distillation.teaching import teach


@method(track="distill", paper="hinton2015distilling")
def kd(
    problem: DistillProblem,
    *,
    temperature: Positive = 2.0,
    alpha: Fraction = 0.9,
    operator: Operator = "power",
    lr: Positive = 3e-3,
    weight_decay: Weight = 0.01,
) -> Solution:
    """The student learns the teacher's softened answers and, with weight 1 - alpha, the labels.

    The loss is alpha T^2 KL(S_T(teacher) || S_T(student)) + (1 - alpha) CE, averaged over the batch (section 2).
    `operator` is the softening S_T: `power` is the usual temperature.
    """
    return teach(problem, temperature, alpha, operator, lr=lr, weight_decay=weight_decay)
