"""The usual optimizers, as `fit` takes them: functions of the named parameters that train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from harness.train.loop import MakeOptimizer


def adamw(lr: float, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999)) -> MakeOptimizer:
    """AdamW (Loshchilov and Hutter 2019) that decays matrices alone: no biases, norms or gains."""
    return lambda named: torch.optim.AdamW(decayed(named, weight_decay), lr=lr, betas=betas)


def sgd(lr: float, weight_decay: float = 0.0, momentum: float = 0.9, nesterov: bool = True) -> MakeOptimizer:
    """Stochastic gradient descent with (Nesterov) momentum, decaying matrices alone."""
    return lambda named: torch.optim.SGD(
        decayed(named, weight_decay), lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0
    )


def decayed(named: Mapping[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: tensors of two dimensions and more decay, others do not."""
    matrices = [p for p in named.values() if p.ndim > 1]
    rest = [p for p in named.values() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
