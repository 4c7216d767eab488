"""What every kernel computes, in plain torch and float64: the tests hold the kernels to these."""

from __future__ import annotations

import torch
from torch import Tensor


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Integers (..., count) from a string of `bits` bits each (..., bytes), least significant bit first."""
    stream = (packed[..., None] >> torch.arange(8, dtype=torch.uint8) & 1).flatten(-2)
    digits = stream[..., : count * bits].unflatten(-1, (count, bits)).long()
    return (digits << torch.arange(bits)).sum(-1)


def unpack_base3(packed: Tensor, count: int) -> Tensor:
    """Weights -1, 0 and 1 (..., count) from bytes (..., ceil(count / 5)) of `pack_base3`."""
    rest, digits = packed.long(), []
    for _ in range(5):
        digits.append(3 * rest // 256)
        rest = 3 * rest % 256
    return torch.stack(digits, -1).flatten(-2)[..., :count] - 1


def pack_ternary(digits: Tensor, layout: str) -> Tensor:
    """Digits 0, 1 and 2 (m, n) as `harness.packed.Ternary` stores t + 1: "two_bits" or "base3"."""
    per_byte, worth = (4, [1, 4, 16, 64]) if layout == "two_bits" else (5, [81, 27, 9, 3, 1])
    padded = torch.nn.functional.pad(digits, (0, -digits.shape[1] % per_byte), value=0 if layout == "two_bits" else 1)
    value = (padded.unflatten(1, (-1, per_byte)) * torch.tensor(worth, device=digits.device)).sum(-1)
    return (value if layout == "two_bits" else (256 * value + 242) // 243).to(torch.uint8)


def round_activations(x: Tensor, block: int) -> Tensor:
    """x (..., n) rounded to 8 bits with one scale, its largest magnitude / 127, for each `block` columns; float64."""
    n = x.shape[-1]
    blocks = torch.nn.functional.pad(x.float(), (0, -n % block)).unflatten(-1, (-1, block))
    largest = blocks.abs().amax(-1, keepdim=True)
    rounded = (blocks * torch.where(largest > 0, 127 / largest, 0)).round()
    return (rounded.double() * (largest / 127).double()).flatten(-2)[..., :n]


def uniform_weight(
    codes: Tensor, scale: Tensor, zero: Tensor | None, *, columns: int, bits: int, group_size: int
) -> Tensor:
    """The weight (m, columns) of `harness_kernels.uniform`, float64."""
    levels = unpack(codes, bits, columns).double()
    if zero is None:
        zeros = torch.full(scale.shape, 2.0 ** (bits - 1), dtype=torch.float64)
    elif zero.dtype == torch.uint8:
        zeros = unpack(zero, bits, scale.numel()).view_as(scale).double()
    else:
        zeros = zero.double()
    return (levels - _columns(zeros, columns, group_size)) * _columns(scale.double(), columns, group_size)


def base3_weight(codes: Tensor, scale: Tensor, *, columns: int, group_size: int) -> Tensor:
    """The weight (m, columns) of `harness_kernels.base3`, float64."""
    return unpack_base3(codes, columns) * _columns(scale.double(), columns, group_size)


def _columns(groups: Tensor, columns: int, group_size: int) -> Tensor:
    if groups.shape[1] == 1:
        return groups
    return groups.repeat_interleave(group_size, 1)[:, :columns]


def lookup_product(
    x: Tensor, patterns: Tensor, index: Tensor, factors: Tensor, offset: Tensor | None, *, block: int, half: bool
) -> Tensor:
    """The product (rows, m) of `harness_kernels.lookup`, float64, from tables rounded just as the kernels round them.

    `patterns` (16, 4): the signs of four activations that a nibble stands for. `index` (planes, m, n / 4): the nibbles,
    16 to 31 for those that are negated. `factors` (planes, m, n / 4): what a plane is worth there; with `half` a plane
    is of 0 and 1, half of its signs plus half of all activations. `offset` (m, n / 4): added for each activation.
    """
    fours = torch.nn.functional.pad(x, (0, -x.shape[1] % block)).unflatten(1, (-1, block // 4, 4))
    sizes = fours.abs()
    largest = (((sizes[..., 0] + sizes[..., 1]) + sizes[..., 2]) + sizes[..., 3]).amax(-1)
    scaled = fours * torch.where(largest > 0, 127 / largest, 0)[..., None, None]
    entries = torch.zeros(*fours.shape[:-1], 16)
    for k in range(4):
        entries = entries + scaled[..., k : k + 1] * patterns[:, k]
    count = index.shape[-1]
    tables = (entries.round().double() * (largest / 127).double()[..., None, None]).flatten(1, 2)[:, :count]
    sums = fours.double().sum(-1).flatten(1)[:, :count]
    y = torch.zeros(len(x), index.shape[1], dtype=torch.float64)
    for row in range(len(x)):
        for plane, worths in zip(index, factors.double(), strict=True):
            picked = tables[row].gather(1, plane.T % 16).T * torch.where(plane > 15, -1, 1)
            y[row] += (((picked + sums[row]) / 2 if half else picked) * worths).sum(-1)
    return y if offset is None else y + sums @ offset.double().T


def lookup_weight(
    codes: Tensor,
    signs: Tensor | None,
    scale: Tensor,
    offset: Tensor | None,
    *,
    rows: int,
    columns: int,
    group_size: int,
) -> tuple[Tensor, Tensor]:
    """The weight (rows, columns) that bit planes or, with `signs`, sparse ternary indices stand for, and the sum of the
    magnitudes of its terms; float64."""

    def per_weight(groups: Tensor) -> Tensor:
        """(tiles, G, planes, 32) to (rows, columns, planes)."""
        wide = groups.double().permute(0, 3, 1, 2).flatten(0, 1)[:rows]
        return wide if wide.shape[1] == 1 else wide.repeat_interleave(group_size, 1)[:, :columns]

    if signs is not None:
        packed = codes[:, :, 0].transpose(1, 2).flatten(0, 1)[:rows].contiguous()
        index = unpack(packed, 4, -(-columns // 4))
        negative = unpack(signs.transpose(1, 2).flatten(0, 1)[:rows].contiguous(), 1, index.shape[1])
        patterns = torch.tensor([_omitting(e) for e in range(16)], dtype=torch.float64)
        ternary = (patterns[index] * (1 - 2 * negative)[..., None]).flatten(1)[:, :columns]
        weight = ternary * per_weight(scale)[..., 0]
        return weight, weight.abs()
    assert offset is not None
    planes = codes.shape[2]
    packed = codes.permute(0, 3, 2, 1).flatten(0, 1)[:rows].contiguous()
    bits = unpack(packed, 1, columns).transpose(1, 2).double()
    factors = per_weight(scale)
    if factors.shape[2] < planes:
        factors = factors * 2.0 ** torch.arange(planes, dtype=torch.float64)
    terms = torch.cat([bits * factors, per_weight(offset[:, :, None]).expand(rows, columns, 1)], -1)
    return terms.sum(-1), terms.abs().sum(-1)


def _omitting(e: int) -> list[int]:
    """Signs of four columns by the index of sparse ternary: the zero's place, then whether two signs differ from 1."""
    signs = [1, -1 if e & 2 else 1, -1 if e & 1 else 1]
    signs.insert(e >> 2, 0)
    return signs


def two_of_four_weight(values: Tensor, index: Tensor, *, columns: int) -> Tensor:
    """The weight (m, columns) of `harness_kernels.two_of_four`, float64."""
    m, kept = values.shape
    place = unpack(index, 2, kept).unflatten(1, (-1, 2))
    fours = torch.zeros(m, kept // 2, 4, dtype=torch.float64)
    return fours.scatter_(-1, place, values.double().unflatten(1, (-1, 2))).flatten(1)[:, :columns]
