"""What the methods that attach adapters have in common: the size that fits the grant, training, merging."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from harness import AdaptProblem, Solution, fit
from harness.parts import adapters as parts
from harness.parts.matching import Matched, match
from harness.train import optimizers


def fitting(
    problem: AdaptProblem, what: str, sizes: Iterable[int], count: Callable[[tuple[int, int], int], int]
) -> Matched[int]:
    """The size, the same for all layers, whose numbers are nearest to the grant; `count(shape, size)` is a layer's."""
    shapes = list(problem.shapes().values())
    return match(problem.granted, sizes, lambda size: sum(count(shape, size) for shape in shapes), what)


def fit_adapters(
    problem: AdaptProblem, make: parts.Make, size: Matched[int], *, lr: float, weight_decay: float
) -> Solution:
    """Train an adapter in every layer of the body and merge them; what is stored is the adapters."""
    adapters = parts.attach(problem.model, problem.layers, make)
    solution = fit(problem, optimizer=optimizers.adamw(lr, weight_decay), trains=parts.trains)
    solution.stored = {name: tensor.clone() for name, tensor in parts.adapter_state(adapters).items()}
    solution.log["trainable"] = size.log
    parts.merge(problem.model, adapters)
    return solution
