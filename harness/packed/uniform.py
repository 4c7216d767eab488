"""Uniform quantization: integer codes, a scale and possibly a zero point for each group of consecutive columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.packed.base import PackedWeight, narrowed, packed, part
from harness.packed.bits import pack_bits, packed_bytes, unpack_bits

SMALLEST = 2.0**-24
"""The smallest positive half-precision number; below 2**-14 they are its multiples."""


def stored_scale(scale: Tensor) -> Tensor:
    """The float32 values that half-precision storage gives back for positive steps; quantize with these.

    Never zero (an all-zero group gets the smallest step) and never infinite. Steps below 2**-14, where half precision
    loses digits, are rounded up so that the range they were made for is still covered.
    """
    if not bool((scale >= 0).all()):
        raise ValueError("a scale is negative or not a number")
    scale = scale.float()
    coarse = (scale / SMALLEST).ceil().clamp(min=1) * SMALLEST
    rounded = scale.clamp(max=torch.finfo(torch.float16).max).half().float()
    return torch.where(scale < 2.0**-14, coarse, rounded)


@packed("uniform")
@dataclass(frozen=True, eq=False, repr=False)
class Uniform(PackedWeight):
    """weight[:, permutation[j]] = scale[:, g] * (code[:, j] - zero[:, g]), with g = j // group_size.

    `codes` is (m, ceil(n * bits / 8)) uint8, see `harness.packed.bits`. `scale` is (m, G) float16 with
    G = ceil(n / group_size), the last group being shorter when the size does not divide n; group_size -1 makes one
    group of the row, and a scale of (1, 1) serves the whole matrix. `zero` is float16 like `scale` ("real"), or the
    integers of all groups, row by row, in one string of `bits` bits each ("int"), or None, which stands for
    2**(bits - 1). Without `permutation` (n) the columns are stored in their own order.
    """

    columns: int
    bits_per_code: int
    group_size: int
    zeros: Literal["int", "real"] | None
    codes: Tensor = part("codes")
    scale: Tensor = part("scales")
    zero: Tensor | None = part("zeros", optional=True)
    permutation: Tensor | None = part("permutation", optional=True)

    @classmethod
    def pack(
        cls,
        codes: Tensor,
        scale: Tensor,
        zero: Tensor | None = None,
        *,
        bits: int,
        group_size: int,
        permutation: Tensor | None = None,
    ) -> Uniform:
        """Store integer codes (m, n) in [0, 2**bits), in stored column order.

        `scale` is (m, G) or (1, 1), already rounded by `stored_scale` if the codes are to fit it. `zero` of the same
        shape is stored in `bits` bits when its dtype is an integer's, in half precision when it is floating.
        `permutation` (n) names the weight's column that each stored column holds. Raises ValueError for what the
        format cannot hold.
        """
        if codes.ndim != 2 or scale.ndim != 2 or (zero is not None and zero.shape != scale.shape):
            raise ValueError(
                f"codes {tuple(codes.shape)}, scale {tuple(scale.shape)} and zero must be matrices, "
                "the last two of one shape"
            )
        zeros: Literal["int", "real"] | None = None
        if zero is not None:
            zeros = "real" if zero.is_floating_point() else "int"
            zero = narrowed(zero, torch.float16, "zero") if zeros == "real" else pack_bits(zero.flatten(), bits)
        if permutation is not None:
            permutation = permutation.to(torch.int16 if codes.shape[1] <= 2**15 else torch.int32)
        return cls(
            codes=pack_bits(codes, bits),
            scale=narrowed(scale, torch.float16, "scale"),
            columns=codes.shape[1],
            bits_per_code=bits,
            group_size=group_size,
            zeros=zeros,
            zero=zero,
            permutation=permutation,
        )

    def __post_init__(self) -> None:
        m, n = self.shape
        if self.codes.ndim != 2 or self.codes.shape[1] != packed_bytes(n, self.bits_per_code):
            raise ValueError(f"codes {tuple(self.codes.shape)} do not hold {n} columns of {self.bits_per_code} bits")
        if self.group_size != -1 and self.group_size < 1:
            raise ValueError(f"group_size is {self.group_size}; accepted are 1 and more, or -1 for the whole row")
        if self.scale.dtype != torch.float16 or tuple(self.scale.shape) not in ((m, self.groups), (1, 1)):
            raise ValueError(
                f"scale {tuple(self.scale.shape)} {self.scale.dtype} is not ({m}, {self.groups}) or (1, 1)"
                f" float16, for {n} columns in groups of {self.group_size}"
            )
        expected = {"int": (packed_bytes(self.scale.numel(), self.bits_per_code),), "real": tuple(self.scale.shape)}
        if (None if self.zero is None else tuple(self.zero.shape)) != expected.get(self.zeros or ""):
            raise ValueError(f"zero points ({self.zeros}) do not fit scale {tuple(self.scale.shape)}")
        if self.permutation is not None and self.permutation.sort().values.tolist() != list(range(n)):
            raise ValueError(f"permutation {tuple(self.permutation.shape)} does not name each of {n} columns once")

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.columns

    @property
    def groups(self) -> int:
        return 1 if self.group_size == -1 else -(-self.columns // self.group_size)

    def integers(self) -> Tensor:
        """Codes (m, n) uint8, in stored column order."""
        return unpack_bits(self.codes, self.bits_per_code, self.columns)

    def zero_points(self) -> Tensor:
        """Float32 zero points, of the shape of `scale`."""
        if self.zero is None:
            return torch.full_like(self.scale, 2.0 ** (self.bits_per_code - 1), dtype=torch.float32)
        if self.zeros == "real":
            return self.zero.float()
        return unpack_bits(self.zero, self.bits_per_code, self.scale.numel()).view_as(self.scale).float()

    def dequantize(self) -> Tensor:
        weight = self.integers().float()
        weight -= self._per_column(self.zero_points())
        weight *= self._per_column(self.scale.float())
        if self.permutation is None:
            return weight
        return torch.empty_like(weight).index_copy_(1, self.permutation.long(), weight)

    def _per_column(self, groups: Tensor) -> Tensor:
        """(m, G) of groups to (m, n) of stored columns; a single column broadcasts as it is."""
        if groups.shape[1] == 1:
            return groups
        return groups.repeat_interleave(self.group_size, 1)[:, : self.columns]
