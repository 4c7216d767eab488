"""Weights put together from parts that are stored each in its own format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.packed.base import PackedWeight, packed, part


@packed("sum")
@dataclass(frozen=True, eq=False, repr=False)
class Sum(PackedWeight):
    """The sum of parts of one shape: a quantized weight and its low-rank correction, or its sparse outliers."""

    parts: tuple[PackedWeight, ...] = part("parts")

    def __post_init__(self) -> None:
        _freeze(self, lambda p: p.shape, "shape")

    @property
    def shape(self) -> tuple[int, int]:
        return self.parts[0].shape

    @property
    def multiply_adds(self) -> int:
        return sum(p.multiply_adds for p in self.parts)

    def dequantize(self) -> Tensor:
        return torch.stack([p.dequantize() for p in self.parts]).sum(0)

    def matmul(self, x: Tensor) -> Tensor:
        product = self.parts[0].matmul(x)
        for p in self.parts[1:]:
            product = product + p.matmul(x)
        return product


@packed("rows")
@dataclass(frozen=True, eq=False, repr=False)
class Rows(PackedWeight):
    """Parts below each other, each some of the output rows: the groups of a convolution, rows of unequal precision."""

    parts: tuple[PackedWeight, ...] = part("parts")

    def __post_init__(self) -> None:
        _freeze(self, lambda p: p.shape[1], "number of columns")

    @property
    def shape(self) -> tuple[int, int]:
        return sum(p.shape[0] for p in self.parts), self.parts[0].shape[1]

    @property
    def multiply_adds(self) -> int:
        return sum(p.multiply_adds for p in self.parts)

    def dequantize(self) -> Tensor:
        return torch.cat([p.dequantize() for p in self.parts])

    def matmul(self, x: Tensor) -> Tensor:
        return torch.cat([p.matmul(x) for p in self.parts], -1)


def _freeze(whole: Sum | Rows, key: Callable[[PackedWeight], object], what: str) -> None:
    """Make the parts a tuple, whatever sequence they came in; they agree in `key`."""
    object.__setattr__(whole, "parts", tuple(whole.parts))
    if not whole.parts or len({key(p) for p in whole.parts}) > 1:
        raise ValueError(f"parts must be at least one and of one {what}, not {list(whole.parts)}")
