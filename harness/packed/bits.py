"""Bit packing of small unsigned integers along the last axis.

Codes follow each other without gaps, least significant bit first: code j occupies bits j*b .. (j+1)*b - 1 of the row,
bit k of the row is bit k mod 8 of byte k // 8. Only the end of a row is padded, with zeros, to a whole byte.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of a row of `count` codes of `bits` bits."""
    return -(-count * bits // 8)


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Integers (..., n) in [0, 2**bits), bits from 1 to 8, into uint8 (..., ceil(n * bits / 8)).

    Raises ValueError for a code out of range.
    """
    per_word, bytes_per_word, dtype = _word(bits)
    if codes.is_floating_point() or (codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < 2**bits):
        raise ValueError(f"codes must be integers from 0 to {2**bits - 1}, to be stored in {bits} bits")
    count = codes.shape[-1]
    codes = F.pad(codes.to(dtype), (0, -count % per_word)).unflatten(-1, (-1, per_word))
    words = (codes << _shifts(per_word, bits, codes)).sum(-1, dtype=dtype)
    packed = (words[..., None] >> _shifts(bytes_per_word, 8, words) & 255).to(torch.uint8).flatten(-2)
    return packed[..., : packed_bytes(count, bits)].contiguous()


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """The inverse of `pack_bits`: uint8 (..., ceil(count * bits / 8)) into uint8 codes (..., count)."""
    per_word, bytes_per_word, dtype = _word(bits)
    if packed.dtype != torch.uint8 or packed.shape[-1] != packed_bytes(count, bits):
        raise ValueError(
            f"{count} codes of {bits} bits take {packed_bytes(count, bits)} bytes a row, not "
            f"{packed.shape[-1]} of {packed.dtype}"
        )
    padded = F.pad(packed, (0, -packed.shape[-1] % bytes_per_word)).unflatten(-1, (-1, bytes_per_word)).to(dtype)
    words = (padded << _shifts(bytes_per_word, 8, padded)).sum(-1, dtype=dtype)
    codes = (words[..., None] >> _shifts(per_word, bits, words) & (2**bits - 1)).to(torch.uint8).flatten(-2)
    return codes[..., :count].contiguous()


def _word(bits: int) -> tuple[int, int, torch.dtype]:
    """(codes, bytes) of the shortest run of whole bytes that holds whole codes, and an integer type that holds it."""
    if bits in (1, 2, 4, 8):
        return 8 // bits, 1, torch.uint8
    if bits in (3, 5, 6, 7):
        return 8, bits, torch.int32 if bits == 3 else torch.int64
    raise ValueError(f"bits is {bits}; codes have from 1 to 8 bits")


def _shifts(count: int, step: int, like: Tensor) -> Tensor:
    return torch.arange(0, count * step, step, dtype=like.dtype, device=like.device)
