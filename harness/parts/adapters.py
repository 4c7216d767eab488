"""Adapters: a trainable change of a frozen weight, attached to layers of a model and merged into them at the end.

An adapter is a module that gives the change for a weight. Attached (as a parametrization of `weight`), it is added
whenever the layer runs, whatever the kind of layer, its padding, stride or groups; merged, it is part of the weight and
costs nothing more. Weights of convolutions are seen as matrices (outputs, inputs x kernel).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from harness.errors import BadInput
from harness.models.inside import matrix_shape, weight_of

MARK = ".adapter."
"""In the name of every parameter of an attached adapter."""


class Adapter(Protocol):
    """A module with the parameters of a change. The change is zero when it is made."""

    def delta(self, weight: Tensor) -> Tensor:
        """What is added to a frozen weight (m, n), in its shape."""

    def base(self, merged: Tensor) -> Tensor:
        """The weight (m, n) that became `merged` when the change was added to it."""


Adapters = dict[str, Any]
"""Adapters, each a module, by the name of their layer."""
Make = Callable[[str, tuple[int, int]], Any]
"""(name of the layer, its weight's shape as a matrix) -> its adapter."""


class Adapted(nn.Module):
    """The parametrization of a weight: itself and its adapter's change."""

    adapter: Any

    def __init__(self, adapter: Any):
        super().__init__()
        self.adapter = adapter

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.adapter.delta(weight.flatten(1)).view_as(weight)


def attach(model: nn.Module, layers: Iterable[str], make: Make) -> Adapters:
    """Give each of the named layers an adapter; its own weight becomes a buffer-like frozen tensor. The adapters by
    layer. Raises BadInput for a layer that has one."""
    adapters: Adapters = {}
    for name in layers:
        module = model.get_submodule(name)
        if parametrize.is_parametrized(module, "weight"):
            raise BadInput(f"layer {name} has an adapter or another parametrization; merge it first")
        weight = weight_of(model, name)
        adapters[name] = make(name, matrix_shape(weight)).to(weight.device)
        parametrize.register_parametrization(module, "weight", Adapted(adapters[name]))
    return adapters


def trains(name: str) -> bool:
    """Whether a parameter is an adapter's: what `fit(trains=...)` takes."""
    return MARK in name


def merge(model: nn.Module, adapters: Adapters) -> None:
    """Add every change to its weight, for good: the model has the modules and names it had before `attach`."""
    for name in adapters:
        parametrize.remove_parametrizations(model.get_submodule(name), "weight", leave_parametrized=True)


@torch.no_grad()
def unmerge(model: nn.Module, adapters: Adapters) -> None:
    """Take the changes out of merged weights again, up to rounding; keep the base where every bit matters."""
    for name, adapter in adapters.items():
        weight = weight_of(model, name)
        weight.copy_(adapter.base(weight.flatten(1)).view_as(weight))


def adapter_state(adapters: Adapters) -> dict[str, Tensor]:
    """All that is stored of adapters: `<layer>.<parameter>`."""
    return {f"{name}.{key}": tensor for name, one in adapters.items() for key, tensor in one.state_dict().items()}


def load_adapter_state(adapters: Adapters, state: Mapping[str, Tensor]) -> None:
    """Put stored tensors into adapters that were made alike. Raises BadInput where they do not fit."""
    expected = adapter_state(adapters)
    if {name: tensor.shape for name, tensor in state.items()} != {name: t.shape for name, t in expected.items()}:
        raise BadInput("the stored adapter does not fit: its layers or shapes are others")
    for name, one in adapters.items():
        one.load_state_dict({key: state[f"{name}.{key}"] for key in one.state_dict()})


def numbers(adapters: Adapters) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for one in adapters.values() for parameter in one.parameters())


class LoRA(nn.Module):
    """Low-Rank Adaptation (Hu et al. 2022): the change is scale * B A, B (m, r) zero and A (r, n) uniform at first."""

    def __init__(self, shape: tuple[int, int], rank: int, scale: float, generator: torch.Generator):
        super().__init__()
        m, n = shape
        bound = n**-0.5  # what Kaiming's rule gives with a = sqrt(5), as in the released code
        self.A = nn.Parameter((2 * torch.rand(rank, n, generator=generator) - 1) * bound)
        self.B = nn.Parameter(torch.zeros(m, rank))
        self.scale = scale

    def delta(self, weight: Tensor) -> Tensor:
        return self.scale * (self.B @ self.A)

    def base(self, merged: Tensor) -> Tensor:
        return merged - self.delta(merged)

    @staticmethod
    def count(shape: tuple[int, int], rank: int) -> int:
        return rank * sum(shape)


class Bone(nn.Module):
    """The block adapter of Kang (2024) without weight guide: the same matrix (m, r) is added to every r columns.

    `B` (r, m) is zero at first; y = W x + B^T (sum of the r-wide pieces of x), the last piece padded with zeros. The
    change has rank r at most.
    """

    def __init__(self, shape: tuple[int, int], block: int):
        super().__init__()
        self.B = nn.Parameter(torch.zeros(block, shape[0]))

    def delta(self, weight: Tensor) -> Tensor:
        n = weight.shape[1]
        return self.B.T.repeat(1, -(-n // len(self.B)))[:, :n]

    def base(self, merged: Tensor) -> Tensor:
        return merged - self.delta(merged)

    @staticmethod
    def count(shape: tuple[int, int], block: int) -> int:
        return shape[0] * block


class Bat(nn.Module):
    """Block affine transformation (Kang 2024): block (a, b) of the weight, r x r, becomes W_ab + W_ab B_a + B_a.

    `B` (m / r, r, r) is zero at first, a matrix for each block row. The weight guides its own change, whose rank has no
    bound but the weight's shape. Raises BadInput where r does not divide both of the weight's sides.
    """

    def __init__(self, shape: tuple[int, int], block: int):
        super().__init__()
        if shape[0] % block or shape[1] % block:
            raise BadInput(f"bat: block={block} does not divide a weight of {shape[0]} x {shape[1]}; give a divisor")
        self.B = nn.Parameter(torch.zeros(shape[0] // block, block, block))

    def delta(self, weight: Tensor) -> Tensor:
        blocks = self._blocks(weight)
        return (torch.einsum("arbk,akc->arbc", blocks, self.B) + self.B[:, :, None]).reshape(weight.shape)

    def base(self, merged: Tensor) -> Tensor:
        identity = torch.eye(self.B.shape[1], dtype=self.B.dtype, device=self.B.device)
        shifted = (self._blocks(merged) - self.B[:, :, None]).flatten(1, 2)  # (a, r * b, r)
        return torch.linalg.solve(identity + self.B, shifted, left=False).reshape(merged.shape)

    def _blocks(self, weight: Tensor) -> Tensor:
        """(m, n) -> (m / r, r, n / r, r)."""
        return weight.unflatten(1, (-1, self.B.shape[1])).unflatten(0, (-1, self.B.shape[1]))

    @staticmethod
    def count(shape: tuple[int, int], block: int) -> int:
        return shape[0] * block
