"""Permutations of hidden units: which tensors they move, and the one that brings a network next to another.

Swapping hidden units, with the rows that feed them and the columns that read them, changes no output. Weight matching
(Ainsworth et al. 2023, "Git Re-Basin", algorithm 1) looks for the permutation of a network's units under which its
weights are nearest to another's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.errors import BadInput
from harness.models.small import ConvNet, Perceptron
from harness.models.vision import ResNet
from harness.parts.statedict import State

Axes = list[tuple[str, int]]
Permutations = dict[str, Tensor]
GAIN = 1e-12
"""A permutation is taken when the objective grows by more than this."""


@dataclass(frozen=True)
class PermSpec:
    """By the name of a permutation, the (tensor, axis) pairs that it moves; `sizes` are numbers of units."""

    axes: dict[str, Axes]
    sizes: dict[str, int]

    @functools.cached_property
    def moved(self) -> dict[str, dict[int, str]]:
        """By tensor, the permutation of each of its axes that has one."""
        found: dict[str, dict[int, str]] = {}
        for name, places in self.axes.items():
            for tensor, axis in places:
                found.setdefault(tensor, {})[axis] = name
        return found


def spec_of(model: nn.Module) -> PermSpec:
    """The permutations that leave a model's outputs as they are. BadInput for an architecture without a rule here."""
    rule = next((rule for kind, rule in _RULES.items() if isinstance(model, kind)), None)
    if rule is None:
        known = ", ".join(kind.__name__ for kind in _RULES)
        raise BadInput(f"no permutations are known for a model of class {type(model).__name__}; known: {known}")
    axes, state = rule(model), model.state_dict()
    return PermSpec(axes, {name: state[places[0][0]].shape[places[0][1]] for name, places in axes.items()})


def _perceptron(model: Perceptron) -> dict[str, Axes]:
    depth = len(model.layers)
    names = [*(f"layers.{at}" for at in range(depth)), "head"]
    return {
        names[at]: [(f"{names[at]}.weight", 0), (f"{names[at]}.bias", 0), (f"{names[at + 1]}.weight", 1)]
        for at in range(depth)
    }


def _convnet(model: ConvNet) -> dict[str, Axes]:
    depth = len(model.blocks)
    readers = [*(f"blocks.{at}.0.weight" for at in range(1, depth)), "head.weight"]
    return {
        f"blocks.{at}": [(f"blocks.{at}.0.weight", 0), *_norm(f"blocks.{at}.1"), (readers[at], 1)]
        for at in range(depth)
    }


def _resnet(model: ResNet) -> dict[str, Axes]:
    """The inner channels of each block. Those of the residual stream stay where they are: the parameter-free shortcut
    copies channel c of a stage to channel c + padding of the next, so that they are tied across the whole network."""
    blocks = [name for name, module in model.named_modules() if hasattr(module, "conv2")]
    return {name: [(f"{name}.conv1.weight", 0), *_norm(f"{name}.bn1"), (f"{name}.conv2.weight", 1)] for name in blocks}


def _norm(name: str) -> Axes:
    return [(f"{name}.{part}", 0) for part in ("weight", "bias", "running_mean", "running_var")]


_RULES: dict[type[nn.Module], Callable] = {Perceptron: _perceptron, ConvNet: _convnet, ResNet: _resnet}


def identity(spec: PermSpec) -> Permutations:
    return {name: torch.arange(size) for name, size in spec.sizes.items()}


def random_permutations(spec: PermSpec, generator: torch.Generator) -> Permutations:
    return {name: torch.randperm(size, generator=generator) for name, size in spec.sizes.items()}


def apply(spec: PermSpec, permutations: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> State:
    """The network with its units in another order: unit k of the result is unit `permutations[name][k]`."""
    return {name: _moved(tensor, spec.moved.get(name, {}), permutations) for name, tensor in state.items()}


def _moved(tensor: Tensor, axes: Mapping[int, str], permutations: Mapping[str, Tensor], but: int = -1) -> Tensor:
    for axis, name in axes.items():
        if axis != but:
            tensor = tensor.index_select(axis, permutations[name])
    return tensor.clone()


def overlap(spec: PermSpec, a: Mapping[str, Tensor], b: Mapping[str, Tensor], permutations: Permutations) -> float:
    """The inner product of a network with another whose units are permuted, over the tensors that move."""
    moved = apply(spec, permutations, {name: b[name] for name in _matched(spec)})
    return sum(float((a[name].double() * moved[name].double()).sum()) for name in moved)


def weight_matching(
    spec: PermSpec,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    generator: torch.Generator,
    *,
    sweeps: int = 100,
    restarts: int = 1,
) -> Permutations:
    """The permutation of b's units that brings its weights near a's: the best of several descents, each in another
    random order of the layers."""
    found = [_descent(spec, a, b, generator, sweeps) for _ in range(restarts)]
    return max(found, key=lambda permutations: overlap(spec, a, b, permutations))


def _descent(
    spec: PermSpec, a: Mapping[str, Tensor], b: Mapping[str, Tensor], generator: torch.Generator, sweeps: int
) -> Permutations:
    """Layer after layer, the assignment that is best while the other layers' stay (Hungarian), until none gains."""
    from scipy.optimize import linear_sum_assignment

    found, names = identity(spec), list(spec.axes)
    for _ in range(sweeps):
        gained = False
        for at in torch.randperm(len(names), generator=generator).tolist():
            name = names[at]
            gains = similarities(spec, a, b, found, name)
            best = torch.from_numpy(linear_sum_assignment(gains.numpy(), maximize=True)[1])
            before, after = (float(gains.gather(1, order[:, None]).sum()) for order in (found[name], best))
            if after > before + GAIN:
                found[name], gained = best, True
        if not gained:
            break
    return found


def similarities(
    spec: PermSpec, a: Mapping[str, Tensor], b: Mapping[str, Tensor], permutations: Permutations, name: str
) -> Tensor:
    """(units, units) float64: the inner product of each of a's units with each of b's, over all tensors that carry
    the permutation `name`, b permuted on their other axes."""
    total = torch.zeros(spec.sizes[name], spec.sizes[name], dtype=torch.float64)
    for tensor, axis in spec.axes[name]:
        if tensor in _matched(spec):
            moved = _moved(b[tensor].double(), spec.moved[tensor], permutations, but=axis)
            ours, theirs = (x.movedim(axis, 0).reshape(len(total), -1) for x in (a[tensor].double(), moved))
            total += ours @ theirs.T
    return total


def _matched(spec: PermSpec) -> list[str]:
    """What is compared: parameters. Running statistics move along, but say nothing of the function's weights."""
    return [name for name in spec.moved if not name.endswith(("running_mean", "running_var"))]
