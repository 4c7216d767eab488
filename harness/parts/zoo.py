"""A zoo of networks of one architecture: brought into one order of units, as coordinates, and how near a new network
lies to one that was there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.errors import BadInput
from harness.parts import permutation
from harness.parts.singular import svd
from harness.parts.statedict import Layout, State


def canonical(
    model: nn.Module,
    states: Sequence[Mapping[str, Tensor]],
    reference: Mapping[str, Tensor],
    generator: torch.Generator,
) -> list[State]:
    """Each network with its units permuted to lie near the reference: the same functions, without the symmetry."""
    spec = permutation.spec_of(model)
    return [
        permutation.apply(spec, permutation.weight_matching(spec, reference, state, generator), state)
        for state in states
    ]


class Coordinates(NamedTuple):
    """Principal coordinates of flat networks (N, D): their mean (D,), an orthonormal basis (D, k), and the standard
    deviations (k,) along it."""

    mean: Tensor
    basis: Tensor
    deviations: Tensor

    @classmethod
    def of(cls, vectors: Tensor, components: int) -> Coordinates:
        """The leading components, at the most N - 1: then the zoo itself is represented exactly."""
        count = min(components, len(vectors) - 1)
        mean = vectors.mean(0)
        basis = svd((vectors - mean).T).U[:, :count].float()
        return cls(mean, basis, ((vectors - mean) @ basis).std(0))

    def encode(self, vectors: Tensor) -> Tensor:
        """(N, D) -> (N, k)."""
        return (vectors - self.mean) @ self.basis

    def decode(self, points: Tensor) -> Tensor:
        """(N, k) -> (N, D)."""
        return self.mean + points @ self.basis.T


def memorisation(
    model: nn.Module, nets: Sequence[Mapping[str, Tensor]], zoo: Sequence[Mapping[str, Tensor]]
) -> dict[str, Any]:
    """How new networks are. `nearest` (N,): for each, its distance to the nearest of the zoo; `pairwise`: the mean
    distance of two of the zoo; `spread`: of two of the new ones (0 for one alone).

    A distance is that after the units of one are matched to the other's (where permutations are known), so that a copy
    with its units in another order is a copy. Means are over neighbours in a ring: networks come in no order.
    """
    distance = _distance(model, zoo[0])
    return {
        "nearest": torch.tensor([min(distance(old, net) for old in zoo) for net in nets]),
        "pairwise": _ring(distance, zoo),
        "spread": _ring(distance, nets),
    }


def _distance(model: nn.Module, state: Mapping[str, Tensor]) -> Callable[..., float]:
    """Euclidean distance of two networks' parameters, the second's units matched to the first's."""
    layout = Layout.of(state, [name for name, _ in model.named_parameters()])
    try:
        spec = permutation.spec_of(model)
    except BadInput:
        spec = permutation.PermSpec({}, {})  # an architecture without a rule: the weights as they are

    def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
        found = permutation.weight_matching(spec, a, b, torch.Generator().manual_seed(0))
        return float((layout.flatten(a) - layout.flatten(permutation.apply(spec, found, b))).norm())

    return distance


def _ring(distance: Callable[..., float], states: Sequence[Mapping[str, Tensor]]) -> float:
    pairs = zip(states, [*states[1:], states[0]], strict=True)
    return sum(distance(a, b) for a, b in pairs) / len(states) if len(states) > 1 else 0.0
