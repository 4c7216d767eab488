"""What the methods that train some of the weights have in common."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness import AdaptProblem, Solution, fit
from harness.models.inside import weight_of
from harness.parts.masks import MaskedAdamW, sparse_update, top
from harness.parts.matching import Matched, shared_out

BETAS = (0.9, 0.95)
"""Of AdamW, as in the code released with paper key liu2025lift."""


def fit_sparse(
    problem: AdaptProblem,
    score: Callable[[str, Tensor], Tensor],
    *,
    lr: float,
    weight_decay: float,
    refresh: int | None = None,
) -> Solution:
    """Train the entries of each layer of the body with the greatest scores, as many in all as the problem grants.

    A layer (m, n) has its share by m + n, as adapters of one rank would. `score(layer, weight)` gives a matrix; every
    `refresh` steps entries are chosen anew by the weights as they are then. What is stored is the entries that changed.
    """
    shapes = problem.shapes()
    counts = shared_out(problem.granted, [m + n for m, n in shapes.values()], [m * n for m, n in shapes.values()])
    weights = {f"{name}.weight": name for name in problem.layers}
    before = {name: weight_of(problem.model, name).detach().clone() for name in problem.layers}
    made: list[MaskedAdamW] = []

    def chosen(model: nn.Module) -> list[Tensor]:
        matrices = [(name, weight_of(model, name).detach().flatten(1)) for name in problem.layers]
        return [top(score(name, matrix), k) for (name, matrix), k in zip(matrices, counts, strict=True)]

    def optimizer(named: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
        parameters = [named[name] for name in weights]
        made.append(MaskedAdamW(parameters, chosen(problem.model), lr=lr, betas=BETAS, weight_decay=weight_decay))
        return made[-1]

    def choose_anew(model: nn.Module, step: int) -> None:
        if refresh and (step + 1) % refresh == 0:
            for number, indices in enumerate(chosen(model)):
                made[-1].choose(number, indices)

    solution = fit(problem, optimizer=optimizer, trains=weights.__contains__, after=choose_anew)
    updates = {name: sparse_update(before[name], weight_of(problem.model, name).detach()) for name in before}
    solution.stored = {f"{name}.{part}": tensor for name, one in updates.items() for part, tensor in one.items()}
    solution.log["trainable"] = Matched(tuple(counts), sum(counts), problem.granted).log
    return solution
