"""Ternary weights: -1, 0 and 1 times a scale, in two bits, five to a byte, or with exactly one zero in four."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.packed.base import PackedWeight, narrowed, packed, part
from harness.packed.bits import pack_bits, packed_bytes, unpack_bits
from harness.packed.tiles import TILE, tiled, untiled


@packed("ternary")
@dataclass(frozen=True, eq=False, repr=False)
class Ternary(PackedWeight):
    """weight[i, j] = scale[i, g] * t[i, j] with t of -1, 0 and 1, g = j // group_size (-1: one group of the row).

    `layout` "two_bits" stores t + 1 in two bits (m, ceil(n / 4)); "base3" five digits t + 1 in a byte (m, ceil(n / 5)):
    v = 81 d0 + 27 d1 + 9 d2 + 3 d3 + d4 as ceil(256 v / 243), whose digits carry out one by one when it is multiplied
    by three. `scale` is (m, G) or (1, 1), float16.
    """

    columns: int
    group_size: int
    layout: Literal["two_bits", "base3"]
    codes: Tensor = part("codes")
    scale: Tensor = part("scales")

    @classmethod
    def pack(
        cls, ternary: Tensor, scale: Tensor, *, group_size: int = -1, layout: Literal["two_bits", "base3"] = "base3"
    ) -> Ternary:
        """Store numbers -1, 0 and 1 (m, n). Raises ValueError for others, and for what the format cannot hold."""
        if ternary.ndim != 2 or not bool(torch.isin(ternary, torch.tensor([-1, 0, 1], device=ternary.device)).all()):
            raise ValueError("a ternary weight is a matrix of -1, 0 and 1")
        digits = ternary.to(torch.int32) + 1
        codes = pack_bits(digits, 2) if layout == "two_bits" else _pack_base3(digits)
        return cls(ternary.shape[1], group_size, layout, codes, narrowed(scale, torch.float16, "scale"))

    def __post_init__(self) -> None:
        m, n = self.shape
        if self.layout not in ("two_bits", "base3"):
            raise ValueError(f"layout is {self.layout!r}; accepted are 'two_bits' and 'base3'")
        row = packed_bytes(n, 2) if self.layout == "two_bits" else -(-n // 5)
        if self.codes.dtype != torch.uint8 or self.codes.shape != (m, row):
            raise ValueError(f"codes {tuple(self.codes.shape)} do not hold {n} ternary columns as {self.layout}")
        if self.group_size != -1 and self.group_size < 1:
            raise ValueError(f"group_size is {self.group_size}; accepted are 1 and more, or -1 for the whole row")
        if self.scale.dtype != torch.float16 or tuple(self.scale.shape) not in ((m, self.groups), (1, 1)):
            raise ValueError(f"scale {tuple(self.scale.shape)} is not float16 of shape {(m, self.groups)} or (1, 1)")

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.codes), self.columns

    @property
    def groups(self) -> int:
        return 1 if self.group_size == -1 else -(-self.columns // self.group_size)

    def integers(self) -> Tensor:
        """(m, n) int8 of -1, 0 and 1."""
        if self.layout == "two_bits":
            return unpack_bits(self.codes, 2, self.columns).to(torch.int8) - 1
        return _unpack_base3(self.codes, self.columns).to(torch.int8) - 1

    def dequantize(self) -> Tensor:
        scale = self.scale.float()
        if scale.shape[1] > 1:
            scale = scale.repeat_interleave(self.group_size, 1)[:, : self.columns]
        return self.integers().float() * scale


@packed("sparse_ternary")
@dataclass(frozen=True, eq=False, repr=False)
class SparseTernary(PackedWeight):
    """Of every four columns exactly one is 0 and three are +scale or -scale: 1.25 bits (Sherry, 2026).

    With z the place of the zero and s0, s1, s2 the signs of the others (1: negative), a block's nibble is
    4 z + 2 (s1 ^ s0) + (s2 ^ s0), and s0 is a bit of its own. Rows are stored in tiles of 32, so that a byte shuffle
    looks 32 of them up at once: `codes` (tiles, ceil(n / 8), 1, 32), two blocks in a byte, low nibble first; `signs`
    (tiles, ceil(n / 32), 32), eight blocks in a byte; `scale` (tiles, G, 1, 32) float16. Rows that fill the last tile
    up are stored, too.
    """

    rows: int
    columns: int
    group_size: int
    codes: Tensor = part("codes")
    signs: Tensor = part("codes")
    scale: Tensor = part("scales")

    @classmethod
    def pack(cls, ternary: Tensor, scale: Tensor, *, group_size: int = -1) -> SparseTernary:
        """Store numbers -1, 0 and 1 (m, n) with one 0 in each four columns; scale (m, G).

        Fewer than four columns at the end may do without. Raises ValueError for a matrix that is no such pattern.
        """
        if ternary.ndim != 2 or not ternary.numel():
            raise ValueError(f"ternary {tuple(ternary.shape)} is not a matrix")
        blocks = _filled(ternary.to(torch.int32)).unflatten(1, (-1, 4))
        if not bool(((blocks == 0).sum(-1) == 1).all() and (blocks.abs() <= 1).all()):
            raise ValueError("a sparse ternary weight has exactly one 0 in each four columns, and otherwise -1 and 1")
        zero = (blocks == 0).int().argmax(-1)
        negative = (blocks[blocks != 0] < 0).view(*zero.shape, 3).int()
        index = 4 * zero + 2 * (negative[..., 1] ^ negative[..., 0]) + (negative[..., 2] ^ negative[..., 0])
        m, n = ternary.shape
        codes = tiled(pack_bits(index, 4)).transpose(1, 2).unsqueeze(2).contiguous()
        signs = tiled(pack_bits(negative[..., 0], 1)).transpose(1, 2).contiguous()
        scales = tiled(narrowed(scale, torch.float16, "scale")).transpose(1, 2).unsqueeze(2).contiguous()
        return cls(m, n, group_size, codes, signs, scales)

    def __post_init__(self) -> None:
        tiles, n = -(-self.rows // TILE), self.columns
        groups = 1 if self.group_size == -1 else -(-n // self.group_size)
        wanted = ((tiles, -(-n // 8), 1, TILE), (tiles, -(-n // 32), TILE), (tiles, groups, 1, TILE))
        found = tuple(tuple(t.shape) for t in (self.codes, self.signs, self.scale))
        if found != wanted or (self.group_size != -1 and self.group_size % 8):
            raise ValueError(f"codes, signs and scale {found} do not hold {self.rows}x{n}, which is {wanted}")

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def multiply_adds(self) -> int:
        return self.rows * self.columns * 3 // 4

    def dequantize(self) -> Tensor:
        blocks = -(-self.columns // 4)
        index = unpack_bits(untiled(self.codes.squeeze(2).transpose(1, 2), self.rows), 4, blocks).int()
        negative = unpack_bits(untiled(self.signs.transpose(1, 2), self.rows), 1, blocks).int()
        zero, second, third = index >> 2, index >> 1 & 1, index & 1
        signs = 1 - 2 * torch.stack([negative, negative ^ second, negative ^ third], -1).float()
        place = torch.arange(3, device=zero.device).expand_as(signs)
        place = place + (place >= zero[..., None])
        ternary = signs.new_zeros(*zero.shape, 4).scatter_(-1, place, signs).flatten(1)[:, : self.columns]
        scale = untiled(self.scale.squeeze(2).transpose(1, 2), self.rows).float()
        if scale.shape[1] > 1:
            scale = scale.repeat_interleave(self.group_size, 1)[:, : self.columns]
        return ternary * scale


def _filled(ternary: Tensor) -> Tensor:
    """A last block of fewer than four columns, filled up so that it has its one 0."""
    missing = -ternary.shape[1] % 4
    if not missing:
        return ternary
    filling = ternary.new_ones(len(ternary), missing)
    filling[:, 0] = (ternary[:, ternary.shape[1] + missing - 4 :] == 0).any(1).int()
    return torch.cat([ternary, filling], 1)


def _pack_base3(digits: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(digits, (0, -digits.shape[1] % 5), value=1).unflatten(1, (-1, 5))
    value = (padded * torch.tensor([81, 27, 9, 3, 1], dtype=torch.int32, device=digits.device)).sum(-1)
    return ((256 * value + 242) // 243).to(torch.uint8)


def _unpack_base3(codes: Tensor, count: int) -> Tensor:
    rest, digits = codes.int(), []
    for _ in range(5):
        rest = 3 * (rest & 255)
        digits.append(rest >> 8)
    return torch.stack(digits, -1).flatten(1)[:, :count]
