"""Activation outliers planted in a model that has none, without changing what it computes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from harness.compress.fold import fold_scale
from harness.errors import BadInput
from harness.models.families import Family, is_layer


@torch.no_grad()
def plant_outliers(
    model: nn.Module, family: Family, *, generator: torch.Generator, frac: float = 0.01, gain: float = 10.0
) -> dict[str, Tensor]:
    """Multiply a share `frac` of the channels of every block's norms by `gain` and divide the next weights' columns.

    Large models have such channels and small ones do not; with them, methods that look at activations can be tested on
    a small model (ptq card, block 18). At least one channel of each norm is chosen. In place; returns the channels by
    the norm's full name. Raises BadInput for a family without a norm that can be rescaled.
    """
    planted = {}
    for prefix in family.block_names(model):
        block = model.get_submodule(prefix)
        for fold in family.fold_pairs(block, getattr(model, "config", None)):
            norm = block.get_submodule(fold.source)
            if is_layer(norm):
                continue
            weight = norm.get_parameter("weight")
            channels = torch.randperm(len(weight), generator=generator)[: math.ceil(frac * len(weight))]
            scale = torch.ones_like(weight)
            scale[channels] = 1 / gain
            fold_scale(block, fold, scale, dtype=weight.dtype)
            planted[f"{prefix}.{fold.source}"] = channels
    if not planted:
        raise BadInput(f"no outliers can be planted in a {family.name} model: none of its norms can be rescaled")
    return planted
