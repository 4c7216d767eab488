"""Weights as sums of bit planes, each with its own factor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.packed.base import PackedWeight, narrowed, packed, part
from harness.packed.bits import pack_bits, unpack_bits
from harness.packed.tiles import TILE, tiled, untiled


@packed("bit_planes")
@dataclass(frozen=True, eq=False, repr=False)
class BitPlanes(PackedWeight):
    """weight = offset + sum_k scale_k * B_k, with B_k of 0 and 1 and the factors of each row and group (ELUTQ, 2025).

    With `scale` of one plane only, plane k is worth 2**k of it: the uniform codes of T-MAC (2024). Rows are stored in
    tiles of 32, so that a byte shuffle looks 32 of them up at once: `codes` (tiles, ceil(n / 8), planes, 32), eight
    columns in a byte, least significant first; `scale` (tiles, G, planes or 1, 32) and `offset` (tiles, G, 32) float16.
    Groups are multiples of eight columns, or -1 for the whole row; rows that fill the last tile up are stored, too.
    """

    rows: int
    columns: int
    group_size: int
    codes: Tensor = part("codes")
    scale: Tensor = part("scales")
    offset: Tensor = part("zeros")

    @classmethod
    def pack(cls, planes: Tensor, scale: Tensor, offset: Tensor, *, group_size: int) -> BitPlanes:
        """Store planes (m, n, b) of 0 and 1, b from 1 to 4, with scale (m, G, b) or (m, G, 1) and offset (m, G).

        Raises ValueError for what the format cannot hold.
        """
        if planes.ndim != 3 or scale.ndim != 3 or offset.ndim != 2:
            raise ValueError("planes (m, n, b), scale (m, G, b) and offset (m, G) have three, three and two dimensions")
        m, n, _ = planes.shape
        bytes_ = pack_bits(planes.to(torch.uint8).transpose(1, 2), 1)
        codes = tiled(bytes_).permute(0, 3, 2, 1).contiguous()
        scales = tiled(narrowed(scale, torch.float16, "scale")).permute(0, 2, 3, 1).contiguous()
        offsets = tiled(narrowed(offset, torch.float16, "offset")).transpose(1, 2).contiguous()
        return cls(m, n, group_size, codes, scales, offsets)

    @classmethod
    def from_codes(cls, codes: Tensor, scale: Tensor, zero: Tensor, *, bits: int, group_size: int) -> BitPlanes:
        """The uniform weight scale * (code - zero) of codes (m, n) and scale and zero (m, G)."""
        planes = codes[..., None] >> torch.arange(bits, device=codes.device) & 1
        return cls.pack(planes, scale[..., None], -scale * zero, group_size=group_size)

    def __post_init__(self) -> None:
        tiles, n = -(-self.rows // TILE), self.columns
        if self.group_size != -1 and (self.group_size < 8 or self.group_size % 8):
            raise ValueError(f"group_size is {self.group_size}; accepted are multiples of 8, or -1 for the whole row")
        groups = 1 if self.group_size == -1 else -(-n // self.group_size)
        planes = self.codes.shape[2] if self.codes.ndim == 4 else 0
        found = tuple(tuple(t.shape) for t in (self.codes, self.scale, self.offset))
        wanted = ((tiles, -(-n // 8), planes, TILE), (tiles, groups, planes, TILE), (tiles, groups, TILE))
        single = (wanted[0], (tiles, groups, 1, TILE), wanted[2])
        if found not in (wanted, single) or not 1 <= planes <= 4:
            raise ValueError(f"codes, scale and offset {found} do not hold {self.rows}x{n}, which is {wanted}")

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    def planes(self) -> Tensor:
        """(m, n, b) uint8 of 0 and 1."""
        stored = untiled(self.codes.permute(0, 3, 2, 1), self.rows)
        return unpack_bits(stored, 1, self.columns).transpose(1, 2)

    def dequantize(self) -> Tensor:
        planes = self.planes().float()
        scale = untiled(self.scale.permute(0, 3, 1, 2), self.rows).float()
        if scale.shape[2] < planes.shape[2]:
            scale = scale * 2.0 ** torch.arange(planes.shape[2], device=scale.device)
        offset = untiled(self.offset.transpose(1, 2), self.rows).float()
        if scale.shape[1] > 1:
            scale = scale.repeat_interleave(self.group_size, 1)[:, : self.columns]
            offset = offset.repeat_interleave(self.group_size, 1)[:, : self.columns]
        return (planes * scale).sum(-1) + offset
