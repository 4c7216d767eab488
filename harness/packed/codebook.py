"""Vectors of outputs that are entries of a codebook."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.packed.base import PackedWeight, narrowed, packed, part
from harness.packed.bits import pack_bits, packed_bytes, unpack_bits


@packed("codebook")
@dataclass(frozen=True, eq=False, repr=False)
class Codebook(PackedWeight):
    """weight[v i + t, permutation[j]] = book[index[i, j], t] * scale[j] + bias[j]: vectors of v outputs (VPTQ, 2024).

    `book` (2**b, v) float16, v along the outputs; the last vector of a column may reach beyond them. Indices of b = 1
    to 16 bits: `codes` holds their low bits, eight at most (ceil(m / v), ceil(n * min(b, 8) / 8)), `high` those above.
    `scale` and `bias` (n) float16 and `permutation` (n) are optional. A residual codebook is a `Sum` of two.
    """

    rows: int
    columns: int
    index_bits: int
    book: Tensor = part("codebook")
    codes: Tensor = part("codes")
    high: Tensor | None = part("codes", optional=True)
    scale: Tensor | None = part("scales", optional=True)
    bias: Tensor | None = part("zeros", optional=True)
    permutation: Tensor | None = part("permutation", optional=True)

    @classmethod
    def pack(
        cls,
        index: Tensor,
        book: Tensor,
        *,
        rows: int,
        scale: Tensor | None = None,
        bias: Tensor | None = None,
        permutation: Tensor | None = None,
    ) -> Codebook:
        """Store integer indices (ceil(rows / v), n) into book (2**b, v). Raises ValueError for what does not fit."""
        if index.ndim != 2 or book.ndim != 2 or len(book) & (len(book) - 1) or not 2 <= len(book) <= 2**16:
            raise ValueError(f"a codebook is a matrix of 2 to 65536 vectors, a power of two, not {tuple(book.shape)}")
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < len(book):
            raise ValueError(f"indices must be from 0 to {len(book) - 1}")
        bits = len(book).bit_length() - 1
        low = min(bits, 8)
        if permutation is not None:
            permutation = permutation.to(torch.int16 if index.shape[1] <= 2**15 else torch.int32)
        return cls(
            rows=rows,
            columns=index.shape[1],
            index_bits=bits,
            book=narrowed(book, torch.float16, "book"),
            codes=pack_bits(index & (2**low - 1), low),
            high=pack_bits(index >> 8, bits - 8) if bits > 8 else None,
            scale=None if scale is None else narrowed(scale, torch.float16, "scale"),
            bias=None if bias is None else narrowed(bias, torch.float16, "bias"),
            permutation=permutation,
        )

    def __post_init__(self) -> None:
        n, low = self.columns, min(self.index_bits, 8)
        if self.book.ndim != 2 or len(self.book) != 2**self.index_bits:
            raise ValueError(f"book {tuple(self.book.shape)} does not have vectors for {self.index_bits} bits")
        vectors = -(-self.rows // self.vector)
        if tuple(self.codes.shape) != (vectors, packed_bytes(n, low)):
            raise ValueError(f"codes {tuple(self.codes.shape)} do not hold {vectors}x{n} indices of {low} low bits")
        high = None if self.index_bits <= 8 else (vectors, packed_bytes(n, self.index_bits - 8))
        if (None if self.high is None else tuple(self.high.shape)) != high:
            raise ValueError(f"high {self.high if self.high is None else tuple(self.high.shape)} is not {high}")
        for name in ("scale", "bias", "permutation"):
            value = getattr(self, name)
            if value is not None and value.shape != (n,):
                raise ValueError(f"{name} {tuple(value.shape)} is not one number for each of {n} columns")

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def vector(self) -> int:
        """Outputs that one index stands for."""
        return self.book.shape[1]

    def index(self) -> Tensor:
        """(ceil(m / v), n) int32."""
        index = unpack_bits(self.codes, min(self.index_bits, 8), self.columns).int()
        if self.high is None:
            return index
        return index | unpack_bits(self.high, self.index_bits - 8, self.columns).int() << 8

    def dequantize(self) -> Tensor:
        weight = self.book.float()[self.index()].transpose(1, 2).flatten(0, 1)[: self.rows]
        if self.scale is not None:
            weight = weight * self.scale.float()
        if self.bias is not None:
            weight = weight + self.bias.float()
        if self.permutation is None:
            return weight.contiguous()
        return torch.empty_like(weight).index_copy_(1, self.permutation.long(), weight)
