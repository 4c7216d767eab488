"""Pruned weights: the kept values and where they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.packed.base import PackedWeight, narrowed, packed, part
from harness.packed.bits import pack_bits, packed_bytes, unpack_bits


@packed("sparse")
@dataclass(frozen=True, eq=False, repr=False)
class Sparse(PackedWeight):
    """`mask` (m, ceil(n / 8)) uint8, one bit for each weight, and the kept `values`, row by row."""

    width: int
    mask: Tensor = part("mask")
    values: Tensor = part("values")

    @staticmethod
    def pack(weight: Tensor, mask: Tensor | None = None, dtype: torch.dtype = torch.float16) -> Sparse | SparseRows:
        """Store the entries of weight (m, n) where the boolean mask (m, n) is true, by default those that are not 0.

        Gives the smaller of the two formats: a bit for each weight, or from a density of about 1/16 down a column
        number for each kept one.
        """
        mask = _checked(weight, mask)
        m, n = weight.shape
        values = narrowed(weight[mask], dtype, "weight")
        index_type = torch.uint16 if n <= 2**16 else torch.int32
        if m * packed_bytes(n, 1) <= 4 * (m + 1) + index_type.itemsize * values.numel():
            return Sparse(n, pack_bits(mask.to(torch.uint8), 1), values)
        rows = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0)).int()
        return SparseRows(n, rows, mask.nonzero()[:, 1].to(index_type), values)

    def __post_init__(self) -> None:
        if int(self._kept().sum()) != self.values.numel():
            raise ValueError(f"{self.values.numel()} values do not fit the mask, which keeps {int(self._kept().sum())}")

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.mask), self.width

    @property
    def multiply_adds(self) -> int:
        return self.values.numel()

    def dequantize(self) -> Tensor:
        return torch.zeros(self.shape, device=self.mask.device).masked_scatter_(self._kept(), self.values.float())

    def _kept(self) -> Tensor:
        return unpack_bits(self.mask, 1, self.width).bool()


@packed("sparse_rows")
@dataclass(frozen=True, eq=False, repr=False)
class SparseRows(PackedWeight):
    """Compressed rows: row i holds values rows[i] to rows[i + 1] - 1, each in its column.

    `rows` (m + 1) int32, `columns` (kept) uint16, or int32 where n is beyond 65536, and `values` (kept).
    """

    width: int
    rows: Tensor = part("index")
    columns: Tensor = part("index")
    values: Tensor = part("values")

    def __post_init__(self) -> None:
        kept = self.values.numel()
        ordered = int(self.rows[0]) == 0 and int(self.rows[-1]) == kept and bool((self.rows.diff() >= 0).all())
        columns = self.columns.long()
        if not ordered or columns.shape != (kept,) or bool(((columns < 0) | (columns >= self.width)).any()):
            raise ValueError(f"rows and columns do not locate {kept} values in {self.width} columns")

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows) - 1, self.width

    @property
    def multiply_adds(self) -> int:
        return self.values.numel()

    def dequantize(self) -> Tensor:
        weight = torch.zeros(self.shape, device=self.values.device)
        row = torch.arange(len(weight), device=weight.device).repeat_interleave(self.rows.diff())
        weight[row, self.columns.long()] = self.values.float()
        return weight


@packed("semi_structured")
@dataclass(frozen=True, eq=False, repr=False)
class SemiStructured(PackedWeight):
    """At most `keep` of every `group` consecutive columns: 2:4 unless said otherwise.

    With G = ceil(n / group): `values` (m, G * keep), and `index`, the place of each value in its group, in
    log2(group) bits rounded up, packed along the row. A group that keeps fewer is filled with zeros.
    """

    width: int
    keep: int
    group: int
    values: Tensor = part("values")
    index: Tensor = part("index")

    @classmethod
    def pack(
        cls,
        weight: Tensor,
        mask: Tensor | None = None,
        dtype: torch.dtype = torch.float16,
        *,
        keep: int = 2,
        group: int = 4,
    ) -> SemiStructured:
        """Store the entries of weight (m, n) where mask is true; ValueError where a group keeps more than `keep`."""
        mask = _checked(weight, mask)
        kept = _grouped(mask, group)
        if bool((kept.sum(-1) > keep).any()):
            raise ValueError(f"the mask keeps more than {keep} of {group} consecutive columns")
        place = kept.int().sort(dim=-1, descending=True, stable=True).indices[..., :keep].sort(dim=-1).values
        values = _grouped(weight.masked_fill(~mask, 0), group).gather(-1, place).flatten(1)
        index = pack_bits(place.flatten(1), _index_bits(group))
        return cls(weight.shape[1], keep, group, narrowed(values, dtype, "weight"), index)

    def __post_init__(self) -> None:
        kept = -(-self.width // self.group) * self.keep
        index_bytes = packed_bytes(kept, _index_bits(self.group))
        m = len(self.values)
        if self.values.shape != (m, kept) or self.index.shape != (m, index_bytes):
            raise ValueError(
                f"values {tuple(self.values.shape)} and index {tuple(self.index.shape)} do not hold "
                f"{self.keep} of {self.group} of {self.width} columns"
            )

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.values), self.width

    @property
    def multiply_adds(self) -> int:
        return self.values.numel()

    def dequantize(self) -> Tensor:
        kept = self.values.shape[1]
        place = unpack_bits(self.index, _index_bits(self.group), kept).long().unflatten(1, (-1, self.keep))
        values = self.values.float().unflatten(1, (-1, self.keep))
        weight = values.new_zeros(*values.shape[:2], self.group).scatter_(-1, place, values)
        return weight.flatten(1)[:, : self.width].contiguous()


def _checked(weight: Tensor, mask: Tensor | None) -> Tensor:
    """The boolean mask, by default that of the entries that are not 0."""
    mask = weight != 0 if mask is None else mask.bool()
    if weight.ndim != 2 or mask.shape != weight.shape:
        raise ValueError(f"weight {tuple(weight.shape)} and mask {tuple(mask.shape)} are not matrices of one shape")
    return mask


def _index_bits(group: int) -> int:
    return max(1, (group - 1).bit_length())


def _grouped(matrix: Tensor, group: int) -> Tensor:
    """(m, n) to (m, G, group), the last group filled with zeros."""
    return torch.nn.functional.pad(matrix, (0, -matrix.shape[1] % group)).unflatten(1, (-1, group))
