"""Weight Compander: weights as a bounded function of what trains (Cakaj et al. 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness import Claim, Fraction, Positive, Solution, TrainProblem, Weight, fit, method
from harness.parts.reparam import fold, own_layers, reparametrize
from harness.train import optimizers

GENERALIZES = "improves generalization on top of standard regularizers"
CLAIMS = [
    Claim("accuracy", "sgd", "train-noise", params={"weight_decay": decay}, paper=GENERALIZES) for decay in (5e-4, 5e-3)
]


class Compander(nn.Module):
    """w = a arctan(v / b), a and b above zero: |w| < a pi / 2, the slope a / b at zero, smaller further out."""

    def __init__(self, a: float, b: float, *, learned: bool = False):
        super().__init__()
        logs = torch.tensor([a, b]).log()
        self.logs = nn.Parameter(logs, requires_grad=learned)
        if not learned:
            del self.logs
            self.register_buffer("logs", logs)

    def forward(self, v: Tensor) -> Tensor:
        a, b = self.logs.exp()
        return a * torch.arctan(v / b)

    def inverse(self, w: Tensor) -> Tensor:
        """The v of a weight within the bound."""
        a, b = self.logs.exp()
        return b * torch.tan(w / a)


@method(track="train", paper="cakaj2023weight", claims=CLAIMS)
def weight_compander(
    problem: TrainProblem,
    *,
    kappa: Positive = 1.0,
    learned: bool = False,
    lr: Positive = 0.1,
    weight_decay: Weight = 5e-4,
    momentum: Fraction = 0.9,
) -> Solution:
    """Small weights are pushed off zero and large ones held back: w = a arctan(v / b) of what trains.

    In linear layers and convolutions, a = b = `kappa` times the deviation of the layer's first weights; v starts as
    they are, and decays. `learned` trains the logarithms of a and b at a hundredth of the rate, without decay. Folded
    at the end, so that nothing more is stored. The function is as summaries of the paper give it, not its code.
    """
    model = problem.model
    layers = own_layers(model)

    def compander(weight: Tensor) -> Compander:
        size = kappa * float(weight.detach().std())
        return Compander(size, size, learned=learned)

    def optimizer(named: dict[str, nn.Parameter]) -> list[torch.optim.Optimizer]:
        curves = [p for name, p in named.items() if name.endswith(".logs")]
        rest = {name: p for name, p in named.items() if not name.endswith(".logs")}
        made: list[Any] = [optimizers.sgd(lr, weight_decay, momentum)(rest)]
        return [*made, torch.optim.SGD(curves, lr=lr / 100)] if curves else made

    reparametrize(model, layers, compander)
    solution = fit(problem, optimizer=optimizer)
    fold(model, layers)
    return solution
