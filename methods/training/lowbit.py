"""What OFQ rounds beside weights: the inputs of layers, and attention with its matrix products in few bits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.vision import Attention
from harness.parts.ste import ActivationLSQ, StatsQ

ROUNDING = "rounding"
"""The submodule of a layer that rounds its input."""
Held = Callable[[StatsQ, Tensor], Tensor]
"""A quantizer and what it rounds -> a mask of the entries that get no gradient."""


class LowBitAttention(nn.Module):
    """The attention of a ViT (N, T, D) whose matrix products can have rounded operands.

    With `joint` (query-key reparametrization, QKR; Liu et al. 2023, section 4.3) the logits are X W X^T, where W of a
    head is W_q^T W_k, (D, D): what is rounded is this product, a row at a time, and the gradient goes through it to
    both. Queries and keys have no biases then. Without rounding it computes what the attention does without those.
    """

    def __init__(self, attention: Attention, *, joint: bool):
        super().__init__()
        self.heads, self.joint = attention.heads, joint
        self.q: Any = attention.q
        self.k: Any = attention.k
        self.v, self.o = attention.v, attention.o
        self.rounding = nn.ModuleDict()
        self.quantizer: StatsQ | Any = None
        self.held: Held | None = None
        self.seen: dict[str, Tensor] | None = None
        if joint:
            for layer in (self.q, self.k):
                layer.register_parameter("bias", None)

    def product(self) -> Tensor:
        """W_q^T W_k of every head, (heads * D, D), as it is stored where it was stored."""
        if self.q is None:
            return self.get_buffer("stored")
        queries, keys = (layer.weight.unflatten(0, (self.heads, -1)) for layer in (self.q, self.k))
        return (queries.transpose(1, 2) @ keys).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        values = self._rounded("v", self._split(self.v(x)))
        shares = self._rounded("shares", self._logits(x).softmax(-1))
        return self.o((shares @ values).transpose(1, 2).flatten(2))

    def _logits(self, x: Tensor) -> Tensor:
        """(N, heads, T, T)"""
        if self.joint:
            x = self._rounded("x", x)
            weight = self._weight().unflatten(0, (self.heads, -1))
            left, right = x[:, None], self._rounded("product", torch.einsum("hde,nte->nhtd", weight, x))
        else:
            left, right = (self._rounded(name, self._split(getattr(self, name)(x))) for name in ("q", "k"))
        width = self.v.out_features // self.heads
        return left @ right.transpose(-1, -2) / width**0.5

    def _weight(self) -> Tensor:
        product = self.product()
        if self.quantizer is None or self.q is None:
            return product
        if self.held is not None:
            product = torch.where(self.held(self.quantizer, product), product.detach(), product)
        return self.quantizer(product)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _rounded(self, name: str, x: Tensor) -> Tensor:
        if self.seen is not None:
            self.seen[name] = x.detach()
        return self.rounding[name](x) if name in self.rounding else x

    def store(self, product: Tensor) -> None:
        """Keep the rounded product (heads * D, D) in place of the two weights."""
        del self.q, self.k
        self.q = self.k = None
        self.register_buffer("stored", product)


def low_bit_attention(model: nn.Module, *, joint: bool) -> dict[str, LowBitAttention]:
    """Put a `LowBitAttention` in the place of every attention of a ViT; by name. Other models have none."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, Attention)}
    for name, module in found.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, LowBitAttention(module, joint=joint))
    return {name: model.get_submodule(name) for name in found}  # type: ignore[misc]


def round_activations(
    model: nn.Module, layers: dict[str, int], attentions: dict[str, LowBitAttention], bits: int, run: Callable[[], Any]
) -> None:
    """Round the inputs of layers, by name to so many bits, and the operands of attention to `bits`.

    `run()` calls the model once, on training samples: the steps start from what is seen there.
    """
    inputs: dict[str, Tensor] = {}

    def look(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs[name] = args[0].detach()

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(functools.partial(look, name)) for name in layers
    ]  # fmt: skip
    for attention in attentions.values():
        attention.seen = {}
    run()
    for hook in hooks:
        hook.remove()
    for name, sample in inputs.items():
        layer = model.get_submodule(name)
        dim = 1 if isinstance(layer, nn.Conv2d) else -1
        layer.add_module(ROUNDING, ActivationLSQ(layers[name], sample, dim=dim))
        layer.register_forward_pre_hook(_round_input)
    for attention in attentions.values():
        for name, sample in (attention.seen or {}).items():
            attention.rounding[name] = ActivationLSQ(bits, sample, unsigned=name == "shares")
        attention.seen = None


def _round_input(layer: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (layer.rounding(args[0]), *args[1:])
