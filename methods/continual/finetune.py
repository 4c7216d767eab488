"""Training on one task after the other, and nothing against forgetting: the baseline of the continual track."""

from __future__ import annotations

from harness import ContinualProblem, Fraction, Positive, Solution, Weight, fit, method
from harness.train import optimizers


@method(track="continual")
def finetune(
    problem: ContinualProblem, *, lr: Positive = 0.05, weight_decay: Weight = 5e-4, momentum: Fraction = 0.9
) -> Solution:
    """The model is trained on each task as it comes, by gradient descent."""
    for task in problem.tasks:
        optimizer = optimizers.sgd(lr, weight_decay, momentum)
        solution = fit(problem, task=task, optimizer=optimizer, steps=problem.steps())
        problem.after_task(problem.model)
    return solution
