"""AdamW, the baseline of the train track (Loshchilov and Hutter 2019, "Decoupled weight decay regularization")."""

from __future__ import annotations

from harness import Fraction, Positive, Solution, TrainProblem, Weight, fit, method
from harness.train import optimizers


@method(track="train", paper="loshchilov2019decoupled")
def adamw(
    problem: TrainProblem,
    *,
    lr: Positive = 1e-3,
    weight_decay: Weight = 0.01,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
) -> Solution:
    """Adam with decoupled weight decay on the matrices."""
    return fit(problem, optimizer=optimizers.adamw(lr, weight_decay, (beta1, beta2)))
