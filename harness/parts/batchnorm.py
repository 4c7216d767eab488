"""Running statistics of batch norm for weights that were not trained together (merged, interpolated, generated).

After arithmetic on weights the stored means and variances fit no longer, and outputs collapse; one pass over training
data gives them anew (Izmailov et al. 2018, section 3.1; Jordan et al. 2023, "REPAIR").
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def has_batchnorm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Running means and variances become the averages over `batches` of inputs, in place; a model without batch norm
    is left as it is and reads none. Give it training inputs only."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return model
    training, momenta = model.training, [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the cumulative average, every batch alike
    model.train()
    for inputs in batches:
        model(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.train(training)
