"""Weights in buckets and the points they are rounded to (Polino et al. 2018): what both methods of the paper share."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.models.inside import weight_of
from harness.packed.bits import pack_bits
from harness.parts.reparam import fold, latent_weight, own_layers, reparametrize
from harness.parts.ste import straight_through

FLAT = 1e-10
"""A bucket whose values are nearer to each other than this is stored as its least value alone."""


class Buckets(NamedTuple):
    """A tensor in runs of `size`: weight = alpha * values + beta, values (B, size) in [0, 1], alpha and beta (B, 1)."""

    values: Tensor
    alpha: Tensor
    beta: Tensor

    def restored(self, values: Tensor, shape: torch.Size) -> Tensor:
        """The tensor of that shape whose scaled values these are."""
        return (self.alpha * values + self.beta).flatten()[: shape.numel()].view(shape)


def into_buckets(weight: Tensor, size: int) -> Buckets:
    """Section 2.1: each run of `size` values by its least one and its range; the last run is filled with its last."""
    flat = weight.detach().flatten()
    size = min(size, len(flat))
    rows = torch.cat([flat, flat[-1:].expand(-len(flat) % size)]).view(-1, size)
    beta = rows.amin(1, keepdim=True)
    alpha = rows.amax(1, keepdim=True) - beta
    alpha = torch.where(alpha < FLAT, torch.ones_like(alpha), alpha)
    return Buckets((rows - beta) / alpha, alpha, beta)


class Points(nn.Module):
    """Weights rounded, bucket by bucket, to the nearest of 2^bits points in [0, 1].

    Points that do not train are as they were given, and the gradient of the rounded weight is that of the weight
    (Algorithm 1). Points that train get the gradient, alpha times it, of every weight assigned to them (section 4);
    the weight gets none.
    """

    def __init__(self, points: Tensor, size: int, *, learned: bool = False):
        super().__init__()
        self.size, self.learned = size, learned
        self.points = nn.Parameter(points, requires_grad=learned)
        if not learned:
            del self.points
            self.register_buffer("points", points)

    def codes(self, scaled: Tensor) -> Tensor:
        """The nearest points' places, (B, size)."""
        points = self.points.detach()
        return torch.bucketize(scaled, (points[1:] + points[:-1]) / 2)

    def forward(self, weight: Tensor) -> Tensor:
        buckets = into_buckets(weight, self.size)
        rounded = buckets.restored(self.points[self.codes(buckets.values)], weight.shape)
        return rounded if self.learned else straight_through(weight, rounded)

    def tensors(self, weight: Tensor) -> dict[str, Tensor]:
        """What a file keeps: `codes`, the buckets' `alpha` and `beta`, and points that were learned."""
        buckets = into_buckets(weight, self.size)
        kept = {
            "codes": pack_bits(self.codes(buckets.values), len(self.points).bit_length() - 1),
            "alpha": buckets.alpha,
            "beta": buckets.beta,
        }
        return {**kept, "points": self.points.detach().clone()} if self.learned else kept


def evenly(bits: int) -> Tensor:
    """2^bits points at equal distances, from 0 to 1."""
    return torch.linspace(0, 1, 2**bits)


def at_quantiles(scaled: Tensor, bits: int) -> Tensor:
    """2^bits points at the quantiles of scaled weights, the least and the largest among them (section 4)."""
    ordered = scaled.flatten().sort().values
    return ordered[torch.linspace(0, len(ordered) - 1, 2**bits).round().long()].clone()


def rounded_layers(model: nn.Module, points: dict[str, Points]) -> None:
    """From now on the named layers compute with rounded weights; the weights themselves are what an optimizer sees."""
    for name, one in points.items():
        reparametrize(model, [name], functools.partial(_given, one))


def keep_rounded(model: nn.Module, points: dict[str, Points]) -> dict[str, Tensor]:
    """Round once and for all; the tensors that a file keeps of the whole model."""
    stored: dict[str, Tensor] = {}
    for name, one in points.items():
        latent = latent_weight(model, name).detach()
        stored |= {f"{name}.{part}": tensor for part, tensor in one.tensors(latent).items()}
    fold(model, points)
    places = {weight_of(model, name).data_ptr() for name in points}
    return {**stored, **{name: t for name, t in model.state_dict().items() if t.data_ptr() not in places}}


def scaled_weight(model: nn.Module, layer: str, size: int) -> Tensor:
    """The scaled values of a layer's weight, (B, size)."""
    return into_buckets(weight_of(model, layer), size).values


def quantized_layers(model: nn.Module, *, ends: bool) -> list[str]:
    """The layers whose weights are rounded: all linear layers and convolutions, or all but the first and the last."""
    layers = own_layers(model)
    return layers if ends else layers[1:-1]


def _given(points: Points, weight: Tensor) -> nn.Module:
    return points
