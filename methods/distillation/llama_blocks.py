"""Cheaper stand-ins for the attention and feed-forward parts of a Llama, started from the weights they replace."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness import BadInput
from harness.parts.blocks import Call

PARTS = ("self_attn", "mlp")


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """The attention and feed-forward parts of every layer by name. BadInput for a model that is not built like a
    Llama."""
    layers = getattr(getattr(model, "model", None), "layers", [])
    pairs = [(at, layer, part) for at, layer in enumerate(layers) for part in PARTS]
    found = {f"model.layers.{at}.{part}": getattr(layer, part, None) for at, layer, part in pairs}
    wanted = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
    fits = all(
        isinstance(getattr(block, name, None), nn.Linear)
        for place, block in enumerate(found.values())
        for name in wanted[place % 2]
    )
    if not found or not fits:
        raise BadInput(f"the teacher is a {type(model).__name__}; it takes a model with the layers of a Llama")
    return found


class Constant(nn.Module):
    """A block that adds nothing; attention's second result is None."""

    def __init__(self, attention: bool):
        super().__init__()
        self.attention = attention

    def forward(self, hidden_states: Tensor, **_: Any) -> Any:
        zeros = torch.zeros_like(hidden_states)
        return (zeros, None) if self.attention else zeros


class Projection(nn.Module):
    """A single matrix in the place of a block; no token sees another."""

    def __init__(self, weight: Tensor, attention: bool):
        super().__init__()
        self.weight, self.attention = nn.Parameter(weight), attention

    def forward(self, hidden_states: Tensor, **_: Any) -> Any:
        output = nn.functional.linear(hidden_states, self.weight)
        return (output, None) if self.attention else output


def variants(block: nn.Module, calls: Sequence[Call], widths: Sequence[float]) -> dict[str, nn.Module]:
    """Stand-ins of a block by name, itself first: a part of its width or key-value heads, a matrix, nothing."""
    attention = hasattr(block, "q_proj")
    found: dict[str, nn.Module] = {"same": block}
    if attention:
        heads = block.k_proj.out_features // block.head_dim
        for kept in (n for n in range(heads - 1, 0, -1) if heads % n == 0):
            found[f"{kept} kv heads"] = fewer_heads(block, kept)
    else:
        order = importance(block, calls).argsort(descending=True, stable=True)
        for width in widths:
            found[f"width {width}"] = narrower(block, order[: max(1, round(width * len(order)))])
    found["linear"] = Projection(as_matrix(block), attention)
    found["nothing"] = Constant(attention)
    return found


def importance(mlp: Any, calls: Sequence[Call]) -> Tensor:
    """How much each hidden channel contributes: its mean magnitude times the norm of its output weights."""
    with torch.no_grad():
        hidden = [mlp.act_fn(mlp.gate_proj(c.input)) * mlp.up_proj(c.input) for c in calls]
    magnitude = torch.stack([h.abs().flatten(0, -2).mean(0) for h in hidden]).mean(0)
    return magnitude * mlp.down_proj.weight.norm(dim=0)


def narrower(mlp: Any, channels: Tensor) -> nn.Module:
    """A feed-forward part with some of its hidden channels."""
    small, channels = copy.deepcopy(mlp), channels.sort().values
    for name in ("gate_proj", "up_proj"):
        _resize(getattr(small, name), getattr(mlp, name).weight[channels])
    _resize(small.down_proj, mlp.down_proj.weight[:, channels])
    small.intermediate_size = len(channels)
    return small


def fewer_heads(attention: Any, kept: int) -> nn.Module:
    """Attention whose key and value heads are means over groups of the old ones."""
    small, size = copy.deepcopy(attention), attention.head_dim
    for name in ("k_proj", "v_proj"):
        heads = getattr(attention, name).weight.unflatten(0, (kept, -1, size))
        _resize(getattr(small, name), heads.mean(1).flatten(0, 1))
    small.config = copy.deepcopy(attention.config)
    small.config.num_key_value_heads = kept
    small.num_key_value_groups = attention.config.num_attention_heads // kept
    return small


def as_matrix(block: Any) -> Tensor:
    """The product of a block's last two linear maps, as if there were nothing between them."""
    with torch.no_grad():
        if not hasattr(block, "q_proj"):
            return block.down_proj.weight @ block.up_proj.weight
        values = block.v_proj.weight.unflatten(0, (-1, block.head_dim))
        repeated = values.repeat_interleave(block.num_key_value_groups, 0).flatten(0, 1)
        return block.o_proj.weight @ repeated


def size_of(block: nn.Module) -> int:
    return sum(p.numel() for p in block.parameters())


def _resize(linear: nn.Linear, weight: Tensor) -> None:
    linear.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    linear.out_features, linear.in_features = weight.shape
