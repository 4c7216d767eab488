"""Flow matching: a velocity field that carries noise to data along straight lines, and its integration.

Lipman et al. (2023), "Flow matching for generative modeling"; Tong et al. (2024) for the independent coupling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Field = Callable[[Tensor, Tensor], Tensor]
"""v(x, t): (N, d), (N, 1) -> (N, d)."""
Rule = Literal["euler", "rk4"]


class VelocityField(nn.Module):
    """A perceptron on x and an embedding of t (Gupta et al. 2026): d + 64 -> h -> h / 2 -> h -> d with layer norm, GELU
    and dropout between. The last layer starts at zero, so an untrained flow leaves its source where it is."""

    def __init__(self, size: int, width: int = 512, time: int = 64, dropout: float = 0.1):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, time), nn.GELU(), nn.Linear(time, time))
        layers: list[nn.Module] = []
        last = size + time
        for hidden in (width, max(1, width // 2), width):
            layers += [nn.Linear(last, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout)]
            last = hidden
        self.body = nn.Sequential(*layers)
        self.out = nn.Linear(last, size)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(N, d), (N, 1) -> (N, d)."""
        return self.out(self.body(torch.cat([x, self.time(t)], dim=-1)))


def matching_loss(field: Field, x1: Tensor, generator: torch.Generator, *, scale: float, noise: float) -> Tensor:
    """Mean over the batch of || v(x_t, t) - (x1 - x0) ||^2 for data x1 (N, d).

    x0 ~ N(0, scale^2), paired at random; t ~ U(0, 1); x_t = (1 - t) x0 + t x1 + noise * N(0, 1).
    """
    x0 = scale * torch.randn(x1.shape, generator=generator)
    t = torch.rand(len(x1), 1, generator=generator)
    xt = torch.lerp(x0, x1, t) + noise * torch.randn(x1.shape, generator=generator)
    return (field(xt, t) - (x1 - x0)).square().sum(-1).mean()


@torch.no_grad()
def integrate(field: Field, x0: Tensor, steps: int = 100, rule: Rule = "euler") -> Tensor:
    """Follow the field from t = 0 to 1 in equal steps: (N, d) -> (N, d)."""
    x, h = x0, 1 / steps
    for at in range(steps):
        t = torch.full((len(x), 1), at * h)
        k1 = field(x, t)
        if rule == "euler":
            x = x + h * k1
            continue
        k2 = field(x + h / 2 * k1, t + h / 2)
        k3 = field(x + h / 2 * k2, t + h / 2)
        k4 = field(x + h * k3, t + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x
