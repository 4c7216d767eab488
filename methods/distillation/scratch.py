"""The student without its teacher: what distillation has to beat."""

from __future__ import annotations

from harness import DistillProblem, Positive, Solution, Weight, fit, method
from harness.train import optimizers


@method(track="distill", role="reference")
def scratch(problem: DistillProblem, *, lr: Positive = 3e-3, weight_decay: Weight = 0.01) -> Solution:
    """The student trained on the labels alone, by AdamW, for as many updates as the others."""
    return fit(problem, optimizer=optimizers.adamw(lr, weight_decay))
