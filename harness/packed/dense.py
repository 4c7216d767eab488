"""The weight itself, in the dtype it is stored in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.packed.base import PackedWeight, packed, part


@packed("dense")
@dataclass(frozen=True, eq=False, repr=False)
class Dense(PackedWeight):
    """`weight` (m, n) of any floating dtype, usually the checkpoint's."""

    weight: Tensor = part("dense")

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or not self.weight.is_floating_point():
            raise ValueError(f"weight {tuple(self.weight.shape)} {self.weight.dtype} is not a floating-point matrix")

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self.weight.shape
        return m, n

    def dequantize(self) -> Tensor:
        return self.weight.to(torch.float32, copy=True)

    def matmul(self, x: Tensor) -> Tensor:
        return x @ self.weight.to(x.dtype).T
