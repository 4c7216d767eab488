"""Quantizers of weights that train: rounded values forward, gradients straight through backward.

Each is a module from a matrix (m, n) to the values of its grid, for `harness.parts.reparam.reparametrize`. `codes` are
the integers that it stores and `packed` the stored format, whose `dequantize` gives the forward values but for the
half-precision scales.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.packed import Uniform

BELOW_ONE = 1 - 1e-6


def straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """`rounded` forward, to the last bit, and the gradient of `value` backward (Bengio et al. 2013)."""
    return rounded.detach() + (value - value.detach())


class StatsQ(nn.Module):
    """The grid of Liu et al. (2023, section 4.1): a row's scale is twice its mean magnitude, no gradient reaches it.

    With u = w / s within [-1, 1) and n = 2^(bits - 1): s (round(u n - 1/2) + 1/2) / n, values without a zero (2 bits:
    +-s/4, +-3s/4). The gradient passes as it is, also beyond the grid's ends.
    """

    def __init__(self, bits: int):
        super().__init__()
        self.bits = bits

    def scale(self, weight: Tensor) -> Tensor:
        """(m, 1)"""
        return 2 * weight.detach().flatten(1).abs().mean(1, keepdim=True)

    def places(self, weight: Tensor) -> Tensor:
        """Where weights lie on the grid (m, n): value k of the grid is at the integer k - 2^(bits - 1)."""
        scale = self.scale(weight).clamp(min=torch.finfo(weight.dtype).tiny)
        return (weight.detach().flatten(1) / scale).clamp(-1, BELOW_ONE) * 2 ** (self.bits - 1) - 0.5

    def codes(self, weight: Tensor) -> Tensor:
        """Integers (m, n) from 0 to 2^bits - 1."""
        half = 2 ** (self.bits - 1)
        return (self.places(weight).round() + half).clamp(0, 2 * half - 1).to(torch.uint8)

    def forward(self, weight: Tensor) -> Tensor:
        half = 2 ** (self.bits - 1)
        rounded = self.scale(weight) * (self.codes(weight).to(weight.dtype) - half + 0.5) / half
        return straight_through(weight, rounded.view_as(weight))

    def packed(self, weight: Tensor) -> Uniform:
        half = 2 ** (self.bits - 1)
        scale = self.scale(weight) / half
        return Uniform.pack(
            self.codes(weight), scale, torch.full_like(scale, half - 0.5), bits=self.bits, group_size=-1
        )


class LSQ(nn.Module):
    """Learned step size quantization (Esser et al. 2020), a step for each row, on the integers -2^(b-1) to 2^(b-1) - 1.

    The step's gradient is round(v) - v inside the grid and its end beyond, scaled by 1 / sqrt(n * 2^(b-1)).
    """

    def __init__(self, bits: int, weight: Tensor):
        super().__init__()
        self.bits = bits
        mean = weight.detach().flatten(1).abs().mean(1, keepdim=True)
        self.step = nn.Parameter(2 * mean / max(1, 2 ** (bits - 1) - 1) ** 0.5)

    def codes(self, weight: Tensor) -> Tensor:
        half = 2 ** (self.bits - 1)
        return ((weight.detach().flatten(1) / self.step.detach()).round() + half).clamp(0, 2 * half - 1).to(torch.uint8)

    def forward(self, weight: Tensor) -> Tensor:
        half, rows = 2 ** (self.bits - 1), weight.flatten(1)
        share = (rows.shape[1] * half) ** -0.5
        step = straight_through(self.step * share, self.step)
        inside = (rows / step).clamp(-half, half - 1)
        return (straight_through(inside, inside.round()) * step).view_as(weight)

    def packed(self, weight: Tensor) -> Uniform:
        return Uniform.pack(self.codes(weight), self.step.detach().abs(), bits=self.bits, group_size=-1)


class ActivationLSQ(nn.Module):
    """Learned step size quantization of activations, with a step, a bias before and a bias after it for each channel.

    Channels are the last dimension, or `dim`. Values are -2^(b-1) to 2^(b-1) - 1 steps, or 0 to 2^b - 1 (`unsigned`,
    of a softmax). Steps start at twice a channel's mean magnitude over the root of the largest value; one that never
    differs from zero in `sample` starts at the smallest step.
    """

    SMALLEST = 1e-6

    def __init__(self, bits: int, sample: Tensor, *, unsigned: bool = False, dim: int = -1):
        super().__init__()
        self.low = 0 if unsigned else -(2 ** (bits - 1))
        self.high = self.low + 2**bits - 1
        rows = sample.detach().movedim(dim, -1).flatten(0, -2)
        shape = [1] * sample.ndim
        shape[dim] = rows.shape[1]
        step = 2 * rows.abs().mean(0) / max(1, self.high) ** 0.5
        self.step = nn.Parameter(step.clamp(min=self.SMALLEST).view(shape))
        self.before, self.after = (nn.Parameter(torch.zeros(shape)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        share = (x.numel() / self.step.numel() * max(1, self.high)) ** -0.5
        step = straight_through(self.step * share, self.step).clamp(min=self.SMALLEST)
        inside = ((x + self.before) / step).clamp(self.low, self.high)
        return straight_through(inside, inside.round()) * step + self.after


class Held:
    """An optimizer that holds entries of its parameters: their gradients are zero and their values come back after the
    step, whatever momentum and decay did. `held(parameter)` is a mask of them, or None for a parameter that trains.
    """

    def __init__(self, base: torch.optim.Optimizer, held: Any):
        self.base, self.held = base, held

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.base.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.base.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.base.load_state_dict(state)

    @torch.no_grad()
    def step(self) -> None:
        kept = []
        for group in self.param_groups:
            for parameter in group["params"]:
                mask = self.held(parameter)
                if mask is not None and parameter.grad is not None:
                    parameter.grad[mask] = 0
                    kept.append((parameter, mask, parameter[mask].clone()))
        self.base.step()
        for parameter, mask, values in kept:
            parameter[mask] = values


class Oscillations:
    """How often weights turn back: the part of weights and steps in which a code changed against its last change."""

    def __init__(self) -> None:
        self.last: dict[str, Tensor] = {}
        self.direction: dict[str, Tensor] = {}
        self.turned: dict[str, list[float]] = {}

    def look(self, name: str, codes: Tensor) -> None:
        """The codes of a layer after a step."""
        codes = codes.to(torch.int16)
        if name in self.last:
            change = (codes - self.last[name]).sign()
            self.turned.setdefault(name, []).append(float((change * self.direction[name] < 0).double().mean()))
            self.direction[name] = torch.where(change != 0, change, self.direction[name])
        else:
            self.direction[name] = torch.zeros_like(codes)
        self.last[name] = codes

    def rates(self) -> dict[str, float]:
        """By layer, over the steps that were looked at."""
        return {name: sum(values) / len(values) for name, values in self.turned.items()}
