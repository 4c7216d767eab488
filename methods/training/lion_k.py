"""Lion and Lion-K (Chen et al. 2024, "Lion Secretly Solves Constrained Optimization: As Lyapunov Predicts")."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from harness import Claim, Fraction, Positive, Solution, TrainProblem, Weight, fit, method
from harness.train.optimizers import decayed
from methods.training.convex import Convex, Name, convex

BOUND = "with decay, no weight is larger than 1 / decay"
CLAIMS = [
    Claim("weight_norm(norm=max)", "adamw", suite, params={"k": "l1"}, paper=BOUND)
    for suite in ("train-vision", "train-lm")
]


class LionK(torch.optim.Optimizer):
    """x <- x - lr (dK(u) + decay x) with u = beta1 m + (1 - beta1) g, then m <- beta2 m + (1 - beta2) g.

    One buffer a parameter. m adds up gradients with their sign, as in the released code of Lion; the direction uses m
    as it was before the step.
    """

    def __init__(
        self,
        params: Iterable[Any],
        k: Convex,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
        self.k = k

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                direction = self.k.subgradient(beta1 * momentum + (1 - beta1) * parameter.grad)
                parameter.sub_(group["lr"] * (direction + group["weight_decay"] * parameter))
                momentum.mul_(beta2).add_(parameter.grad, alpha=1 - beta2)
        return loss


@method(track="train", paper="chen2024lion", claims=CLAIMS)
def lion_k(
    problem: TrainProblem,
    *,
    k: Name = "l1",
    lr: Positive = 3e-4,
    weight_decay: Weight = 0.1,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.99,
    edge: Positive = 1e-3,
) -> Solution:
    """A subgradient of a convex K of the momentum, with decoupled decay: it minimizes the loss plus K*(decay x)/decay.

    With `l1`, which is Lion, weights end within +-1/decay; `l2`, `group` (rows), `nuclear` (Muon with decay, by the
    decomposition) and `lp` bound the dual norms; `huber` and `sqrt` round the corner of `l1` over `edge`; `quad` is
    momentum with decay. Rate and decay follow Lion's advice: 3 to 10 times smaller, and larger, than AdamW's.
    """
    chosen = convex(k, edge=edge)
    return fit(
        problem,
        optimizer=lambda named: LionK(
            decayed(named, weight_decay), chosen, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay
        ),
    )
