"""Muon: momentum, orthogonalized by Newton-Schulz (Jordan et al. 2024), a baseline of the train track."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from harness import Fraction, Positive, Solution, TrainProblem, Weight, fit, method
from harness.models.inside import in_body
from harness.parts.linalg import newton_schulz
from harness.train import optimizers

Adjust = Literal["match_rms_adamw", "original"]


class Muon(torch.optim.Optimizer):
    """Nesterov momentum of each matrix, its singular values brought to about 1, and decoupled weight decay.

    Convolutions are matrices (outputs, inputs x kernel). `adjust` scales the rate by the matrix's shape (m, n):
    `original` by sqrt(max(1, m / n)), `match_rms_adamw` by 0.2 sqrt(max(m, n)), with which AdamW's rates serve. `dtype`
    is that of the iteration; torch.optim.Muon's is bfloat16.
    """

    def __init__(
        self,
        params: list[nn.Parameter],
        *,
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        adjust: Adjust = "match_rms_adamw",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.adjust, self.dtype = adjust, dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(average, group["momentum"]).flatten(1)
                m, n = ahead.shape
                factor = 0.2 * max(m, n) ** 0.5 if self.adjust == "match_rms_adamw" else max(1, m / n) ** 0.5
                update = newton_schulz(ahead, dtype=self.dtype).to(parameter.dtype).view_as(parameter)
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * factor)
        return loss


def split(named: Mapping[str, nn.Parameter]) -> tuple[list[nn.Parameter], dict[str, nn.Parameter]]:
    """The matrices of the model's body, and all other parameters."""
    hidden = {name: p for name, p in named.items() if p.ndim > 1 and in_body(name)}
    return list(hidden.values()), {name: p for name, p in named.items() if name not in hidden}


@method(track="train", paper="jordan2024muon")
def muon(
    problem: TrainProblem,
    *,
    lr: Positive = 1e-3,
    weight_decay: Weight = 0.1,
    momentum: Fraction = 0.95,
    adjust: Adjust = "match_rms_adamw",
) -> Solution:
    """Orthogonalized momentum for the matrices inside the blocks, AdamW of the same rate for the rest.

    The rest are embeddings, the head, biases and norms. Rate, decay and momentum are torch.optim.Muon's.
    """

    def optimizer(named: dict[str, nn.Parameter]) -> list[torch.optim.Optimizer]:
        hidden, rest = split(named)
        return [
            Muon(hidden, lr=lr, weight_decay=weight_decay, momentum=momentum, adjust=adjust),
            optimizers.adamw(lr, weight_decay)(rest),  # type: ignore[list-item]
        ]

    return fit(problem, optimizer=optimizer)
