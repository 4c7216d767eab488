"""Stochastic gradient descent with Nesterov momentum (Sutskever et al. 2013), a baseline of the train track."""

from __future__ import annotations

from harness import Fraction, Positive, Solution, TrainProblem, Weight, fit, method
from harness.train import optimizers


@method(track="train", paper="sutskever2013importance")
def sgd(
    problem: TrainProblem, *, lr: Positive = 0.1, weight_decay: Weight = 5e-4, momentum: Fraction = 0.9
) -> Solution:
    """Gradient descent with Nesterov momentum and weight decay on the matrices."""
    return fit(problem, optimizer=optimizers.sgd(lr, weight_decay, momentum))
