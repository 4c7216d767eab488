"""Fine-tuning of every weight, the baseline of the adapt track."""

from __future__ import annotations

from harness import AdaptProblem, Positive, Solution, Weight, fit, method
from harness.train import optimizers


@method(track="adapt")
def full(problem: AdaptProblem, *, lr: Positive = 1e-3, weight_decay: Weight = 0.0) -> Solution:
    """Every weight trains, whatever number of them is granted; the whole model is stored."""
    return fit(problem, optimizer=optimizers.adamw(lr, weight_decay))
