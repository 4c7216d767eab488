"""A product of two thin matrices."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from harness.packed.base import PackedWeight, packed, part


@packed("lowrank")
@dataclass(frozen=True, eq=False, repr=False)
class LowRank(PackedWeight):
    """weight = A @ B with A (m, r) and B (r, n), in the dtype they are stored in."""

    A: Tensor = part("lowrank")
    B: Tensor = part("lowrank")

    def __post_init__(self) -> None:
        if self.A.ndim != 2 or self.B.ndim != 2 or self.A.shape[1] != self.B.shape[0]:
            raise ValueError(f"A {tuple(self.A.shape)} and B {tuple(self.B.shape)} have no product")

    @property
    def shape(self) -> tuple[int, int]:
        return self.A.shape[0], self.B.shape[1]

    @property
    def rank(self) -> int:
        return self.A.shape[1]

    @property
    def multiply_adds(self) -> int:
        return self.rank * sum(self.shape)

    def dequantize(self) -> Tensor:
        return self.A.float() @ self.B.float()

    def matmul(self, x: Tensor) -> Tensor:
        return (x @ self.B.to(x.dtype).T) @ self.A.to(x.dtype).T
