"""A zoo of networks of one architecture: brought into one order of units, as coordinates, and how near a new network
lies to one that was there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

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
) -> dict[str, Tensor | float]:
    """How new networks are. `nearest`: for each, its distance to the nearest of the zoo; `pairwise`: the mean distance
    of two of the zoo; `spread`: of two of the new ones (0 for one alone).

    All are brought into the order of the zoo's first before (where their permutations are known), so that a copy with
    its units in another order is a copy.
    """
    names = [name for name, _ in model.named_parameters()]
    layout, generator = Layout.of(zoo[0], names), torch.Generator().manual_seed(0)
    both = []
    for states in (nets, zoo):
        with suppress(BadInput):  # an architecture without a rule: distances are those of the weights as they are
            states = canonical(model, states, zoo[0], generator)
        both.append(torch.stack([layout.flatten(state) for state in states]))
    new, old = both
    nearest = torch.cdist(new, old, compute_mode="donot_use_mm_for_euclid_dist").min(1).values
    return {"nearest": nearest, "pairwise": _mean_distance(old), "spread": _mean_distance(new)}


def _mean_distance(vectors: Tensor) -> float:
    return float(torch.nn.functional.pdist(vectors).mean()) if len(vectors) > 1 else 0.0
