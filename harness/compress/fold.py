"""Rescaling the channels between two operations without changing what the block computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.models.families import Fold


@torch.no_grad()
def fold_scale(block: nn.Module, fold: Fold, scale: Tensor, *, dtype: torch.dtype) -> dict[str, Tensor]:
    """Divide the outputs of `fold.source` by `scale` (channels,) and multiply the columns of `fold.layers` by it.

    In place. Returns the other tensors that changed (a norm's weight, biases), by their name in the block, in `dtype`,
    the checkpoint's. The block holds exactly these stored values: a norm's weight is rounded to `dtype` first, and its
    layers are multiplied by the ratio of its weights before and after, so that rounding costs nothing. A channel whose
    norm weight is zero, or would become zero, keeps its scale.
    """
    source = block.get_submodule(fold.source)
    if isinstance(source.weight, Tensor) and source.weight.ndim == 1:
        scale = _divide_norm(source, scale, offset=float(fold.one_plus), dtype=dtype)
        changed = ["weight"]
    else:
        _outputs_first(source).div_(scale[:, None])
        changed = []
    if isinstance(bias := getattr(source, "bias", None), Tensor):
        bias.copy_((bias / scale).to(dtype))
        changed.append("bias")
    for name in fold.layers:
        _outputs_first(block.get_submodule(name)).mul_(scale)
    return {f"{fold.source}.{name}": getattr(source, name).detach().to(dtype) for name in changed}


def _divide_norm(norm: nn.Module, scale: Tensor, *, offset: float, dtype: torch.dtype) -> Tensor:
    """Divide a norm that multiplies by offset + weight; returns the scale that it was really divided by."""
    weight = norm.weight
    assert isinstance(weight, Tensor)
    before = offset + weight
    stored = (before / scale - offset).to(dtype).to(weight.dtype)
    after = offset + stored
    possible = (before != 0) & (after != 0)
    weight.copy_(torch.where(possible, stored, weight))
    return torch.where(possible, before / after, torch.ones_like(scale))


def _outputs_first(layer: nn.Module) -> Tensor:
    """A view (m, n) of a linear layer's weight."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.T if type(layer).__name__ == "Conv1D" else weight
