"""Hidden channels of a block: rows of the layers that write them and columns of the layer that reads them.

Moved together, channels change their places and no output. A slice of channels that lie side by side can then train as
one dense matrix (S2FT, Yang et al. 2024).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.inside import weight_of


@dataclass(frozen=True)
class Coupled:
    """Layers that share hidden channels.

    `rows` write channels, `width` each of a unit; `shared` write those of a whole unit too, but fewer (the keys and
    values of grouped queries). `reader` reads them. `units` can change places.
    """

    reader: str
    rows: tuple[str, ...]
    units: int
    width: int = 1
    shared: tuple[str, ...] = ()
    shared_width: int = 1


def ffn_channels(model: nn.Module) -> list[Coupled]:
    """The hidden channels of every feed-forward part, a unit each: gated, of two layers, or a perceptron's layers."""
    found = []
    for name, module in model.named_modules():
        for rows, reader in ((("gate_proj", "up_proj"), "down_proj"), (("fc1",), "fc2")):
            if all(isinstance(getattr(module, part, None), nn.Linear) for part in (*rows, reader)):
                units = getattr(module, reader).in_features
                found.append(Coupled(f"{name}.{reader}", tuple(f"{name}.{part}" for part in rows), units))
    layers = getattr(model, "layers", None)
    if isinstance(layers, nn.ModuleList) and all(isinstance(layer, nn.Linear) for layer in layers):
        found += [
            Coupled(f"layers.{at}", (f"layers.{at - 1}",), weight_of(model, f"layers.{at}").shape[1])
            for at in range(1, len(layers))
        ]
    return found


def attention_heads(model: nn.Module) -> list[Coupled]:
    """The heads of every attention; with grouped queries a unit is a key-value head and the queries that share it."""
    found = []
    for name, module in model.named_modules():
        for q, k, v, o in (("q_proj", "k_proj", "v_proj", "o_proj"), ("q", "k", "v", "o")):
            parts = [getattr(module, part, None) for part in (q, k, v, o)]
            if all(isinstance(part, nn.Linear) for part in parts):
                width = _head_width(module)
                queries, values = (getattr(module, part).out_features for part in (q, v))
                units = values // width
                found.append(
                    Coupled(f"{name}.{o}", (f"{name}.{q}",), units, queries // units,
                            (f"{name}.{k}", f"{name}.{v}"), width)
                )  # fmt: skip
    return found


def _head_width(module: Any) -> int:
    return int(module.head_dim) if hasattr(module, "head_dim") else module.q.out_features // module.heads


@torch.no_grad()
def permute(model: nn.Module, coupled: Coupled, order: Tensor) -> None:
    """Put unit `order[i]` in place i, in every layer of the group. The model computes what it did."""
    wide, narrow = spread(order, coupled.width), spread(order, coupled.shared_width)
    for names, index in ((coupled.rows, wide), (coupled.shared, narrow)):
        for name in names:
            layer: Any = model.get_submodule(name)
            layer.weight.copy_(layer.weight[index])
            if layer.bias is not None:
                layer.bias.copy_(layer.bias[index])
    reader = weight_of(model, coupled.reader)
    reader.copy_(reader[:, wide])


def spread(units: Tensor, width: int) -> Tensor:
    """Units (u) -> the channels of each (u * width)."""
    return (units[:, None] * width + torch.arange(width)).flatten()


class SliceProduct(torch.autograd.Function):
    """x W^T + x[..., :k] D^T, of which only D (m, k) trains: of the input only the first k channels are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, change: Tensor) -> Tensor:
        part = x[..., : change.shape[1]].contiguous()
        ctx.save_for_backward(part, weight, change)
        return x @ weight.T + part @ change.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor]:
        (gradient,) = gradients
        part, weight, change = ctx.saved_tensors
        to_input = gradient @ weight
        to_input[..., : change.shape[1]] += gradient @ change
        return to_input, None, gradient.flatten(0, -2).T @ part.flatten(0, -2)


class SliceLinear(nn.Module):
    """A linear layer whose first k input columns train, as a change `slice` (m, k) that is zero at first."""

    def __init__(self, layer: nn.Linear, count: int):
        super().__init__()
        self.layer = layer
        self.slice = nn.Parameter(torch.zeros(layer.out_features, count))

    def forward(self, x: Tensor) -> Tensor:
        y = SliceProduct.apply(x, self.layer.weight.detach(), self.slice)
        return y if self.layer.bias is None else y + self.layer.bias

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer it was made from, with the change in its weight."""
        self.layer.weight[:, : self.slice.shape[1]] += self.slice
        return self.layer


def add_columns(model: nn.Module, update: dict[str, Tensor]) -> None:
    """Add a stored update, `<layer>.indices` (k) and `<layer>.values` (m, k), to the columns it names. Updates of
    other columns do not touch each other, so several can be added and, with their values negated, taken out."""
    with torch.no_grad():
        for layer in updated_layers(update):
            weight = weight_of(model, layer)
            weight[:, update[f"{layer}.indices"].long()] += update[f"{layer}.values"]


def updated_layers(update: Iterable[str]) -> Iterator[str]:
    """The layers that an update names."""
    return (name.removesuffix(".indices") for name in update if name.endswith(".indices"))
