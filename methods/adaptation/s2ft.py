"""S2FT: Structured Sparse Fine-Tuning (Yang et al. 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness import AdaptProblem, BadInput, Claim, Fraction, Positive, Solution, Weight, fit, method
from harness.models.inside import weight_of
from harness.parts.coupled import Coupled, SliceLinear, add_columns, attention_heads, ffn_channels, permute, spread
from harness.parts.matching import Matched
from harness.train import optimizers

KEEPS = "11.5% better than full fine-tuning in generalization"
LEARNS = "4.6% and 1.3% above LoRA on commonsense and arithmetic"
CLAIMS = [
    claim
    for suite, level in (("adapt-vision", 0.7), ("adapt-lm", 0.05))
    for claim in (
        Claim(f"forgetting(at={level})", "full", suite, paper=KEEPS),
        Claim("cross_entropy(task=target)", "lora", suite, paper=LEARNS),
    )
]


@method(track="adapt", paper="yang2024s2ft", claims=CLAIMS)
def s2ft(problem: AdaptProblem, *, heads: Fraction = 0.0, lr: Positive = 1e-3, weight_decay: Weight = 0.0) -> Solution:
    """A few channels of the feed-forward parts are moved side by side, and their columns of `down` train.

    Channels are drawn at random over all layers together (the paper's recommendation), so that layers get different
    numbers of them, until the grant is spent; the part `heads` of it goes to whole heads of the output projections
    (released script: 0). Stored are the change of the columns and their indices. Raises BadInput for a model without
    feed-forward parts (or attention, for `heads`).
    """
    model = problem.model
    places = [
        *_drawn(problem, ffn_channels(model), problem.granted * (1 - heads), "feed-forward parts", needed=heads < 1),
        *_drawn(problem, attention_heads(model), problem.granted * heads, "attention", needed=heads > 0),
    ]
    before = {coupled.reader: weight_of(model, coupled.reader).detach().clone() for coupled, _ in places}
    for coupled, chosen in places:
        permute(model, coupled, torch.cat([chosen, _others(coupled.units, chosen)]))
    slices = {one.reader: SliceLinear(_layer(model, one.reader), len(chosen) * one.width) for one, chosen in places}
    for name, module in slices.items():
        _put(model, name, module)
    solution = fit(problem, optimizer=optimizers.adamw(lr, weight_decay), trains=lambda name: name.endswith(".slice"))
    for name, module in slices.items():
        _put(model, name, module.merged())
    # A layer may read one group and write another, so all are put back before a change is read off its columns.
    for coupled, chosen in places:
        permute(model, coupled, torch.cat([chosen, _others(coupled.units, chosen)]).argsort())
    stored: dict[str, Tensor] = {}
    for coupled, chosen in places:
        weight, columns = weight_of(model, coupled.reader).detach(), spread(chosen, coupled.width)
        stored[f"{coupled.reader}.indices"] = columns.to(torch.int16)
        stored[f"{coupled.reader}.values"] = (weight - before[coupled.reader])[:, columns]
        weight.copy_(before[coupled.reader])
    add_columns(model, stored)
    solution.stored = stored
    numbers = sum(one.slice.numel() for one in slices.values())
    counts = {coupled.reader: len(chosen) for coupled, chosen in places}
    solution.log["trainable"] = Matched(counts, numbers, problem.granted).log
    return solution


def _drawn(
    problem: AdaptProblem, groups: list[Coupled], granted: float, what: str, *, needed: bool
) -> list[tuple[Coupled, Tensor]]:
    """Units drawn over all groups together until their columns have the numbers granted, by group, ascending."""
    if not needed:
        return []
    if not groups:
        raise BadInput(f"s2ft: the model has no {what} that it knows; it takes a Llama, a ViT or a perceptron")
    costs = [weight_of(problem.model, one.reader).shape[0] * one.width for one in groups]
    units = [(at, unit) for at, one in enumerate(groups) for unit in range(one.units)]
    chosen: list[list[int]] = [[] for _ in groups]
    for drawn in torch.randperm(len(units), generator=problem.generator).tolist():
        at, unit = units[drawn]
        if costs[at] / 2 > granted and any(chosen):
            break  # one more would be further from the grant than none
        chosen[at].append(unit)
        granted -= costs[at]
    return [(one, torch.tensor(sorted(taken))) for one, taken in zip(groups, chosen, strict=True) if taken]


def _others(units: int, chosen: Tensor) -> Tensor:
    """The units that were not chosen, ascending."""
    free = torch.ones(units, dtype=torch.bool)
    free[chosen] = False
    return free.nonzero().flatten()


def _layer(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the named one."""
    parent, _, child = name.rpartition(".")
    holder: Any = model.get_submodule(parent)
    holder._modules[child] = module
