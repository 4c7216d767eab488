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

    `patterns` (16, 4) are the signs of four activations that a nibble stands for; `index` (planes, m, n / 4) the nibbles,
    16 to 31 for those that are negated; `factors` (planes, m, n / 4) what each plane is worth there and `offset` (m, n / 4)
    what is added for each activation. `half`: planes are of 0 and 1, half of their signs plus half of all activations.
    """
    rows, n = x.shape
    fours = torch.nn.functional.pad(x, (0, -n % block)).unflatten(1, (-1, block // 4, 4))
    largest = fours.abs().sum(-1).amax(-1)
    factor = torch.where(largest > 0, 127 / largest, 0)[..., None, None]
    entries = torch.zeros(*fours.shape[:-1], 16)
    for k in range(4):
        entries = entries + (fours[..., k : k + 1] * factor) * patterns[:, k]
    worth = (largest / 127).double()[..., None, None]
    tables = (entries.round().double() * worth).flatten(1, 2)[:, : -(-n // 4)]
    sums = fours.double().sum(-1).flatten(1)[:, : -(-n // 4)]
    y = torch.zeros(rows, index.shape[1], dtype=torch.float64)
    for plane, worths in zip(index, factors.double(), strict=True):
        for row in range(len(y)):
            picked = torch.stack([tables[row, k, plane[:, k] % 16] for k in range(plane.shape[1])], -1)
            picked = torch.where(plane > 15, -picked, picked)
            y[row] += (((picked + sums[row]) / 2 if half else picked) * worths).sum(-1)
    return y if offset is None else y + sums @ offset.double().T
