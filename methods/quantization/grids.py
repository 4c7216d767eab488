"""Uniform grids: evenly spaced values, with a scale and a zero point for each group of weights."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from harness import BadInput, LayerProblem, Uniform
from harness.packed import stored_scale

Clip = Literal["minmax", "mse"]
"""The range of a grid: that of its weights, or the part of it with the least rounding error."""

SHRINKS = 80
"""Ranges that `mse` tries: 100%, 99%, ... of the weights' own."""
EXPONENT = 2.4
"""Of the rounding errors that `mse` adds up."""
CHUNK = 2**17
"""Weights that `mse` works on at a time, so that they stay in cache."""


class Grid(NamedTuple):
    """The values scale * k, k an integer from `low` to `high`, 0 among them; k - low is the code.

    Tensors (float32) that broadcast against the weights. Half precision stores the scales exactly, so the values are,
    bit for bit, those that the stored format gives back.
    """

    scale: Tensor
    low: Tensor
    high: Tensor

    def round(self, weight: Tensor) -> Tensor:
        """The nearest values of the grid; a tie goes to the even k."""
        k = torch.div(weight, self.scale).round_()
        return torch.clamp(k, self.low, self.high, out=k).mul_(self.scale)

    def codes(self, values: Tensor) -> Tensor:
        """The codes (uint8) of values that are on the grid."""
        return torch.div(values, self.scale).round_().sub_(self.low).to(torch.uint8)

    def view(self, *shape: int) -> Grid:
        return Grid(*(tensor.reshape(shape) for tensor in self))


def fit(weight: Tensor, *, bits: int, symmetric: bool = False, clip: Clip = "minmax", dim: int = -1) -> Grid:
    """Grids for groups of weights that lie along `dim`, where the tensors of the result have size 1.

    Asymmetric: over the range from the smallest to the largest weight, widened to include 0. Symmetric: from -a to a,
    a being the largest magnitude, with the zero point 2**(bits - 1). `mse` shrinks the range by the factor 1 - i/100,
    i < 80, with the least sum |rounded - weight|**2.4, as the code released with paper key frantar2022gptq does.
    """
    if clip == "minmax":
        return _over(weight.amin(dim, keepdim=True), weight.amax(dim, keepdim=True), bits, symmetric)
    groups = weight.movedim(dim, -1)
    rows = groups.reshape(-1, groups.shape[-1])
    found = [_search(part, bits, symmetric) for part in rows.split(max(1, CHUNK // rows.shape[1]))]
    shape = (*groups.shape[:-1], 1)
    return Grid(*(torch.cat(parts).view(shape).movedim(-1, dim) for parts in zip(*found, strict=True)))


def _over(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> Grid:
    """The grid over a range."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    steps = 2**bits - 1
    if symmetric:
        scale = stored_scale(2 * torch.maximum(-low, high) / steps)
        first = torch.full_like(scale, -(2 ** (bits - 1)))
    else:
        scale = stored_scale((high - low) / steps)
        first = torch.round(low / scale).clamp(-steps, 0).float()
    return Grid(scale, first, first + steps)


def _search(rows: Tensor, bits: int, symmetric: bool) -> Grid:
    """The grid of each row (rows, 1) over the shrunken range with the least error."""
    low, high = rows.amin(-1, keepdim=True), rows.amax(-1, keepdim=True)
    best = _over(low, high, bits, symmetric)
    least = torch.full_like(low, torch.inf)
    for i in range(SHRINKS):
        grid = _over(low * (1 - i / 100), high * (1 - i / 100), bits, symmetric)
        error = grid.round(rows).sub_(rows).abs_().pow_(EXPONENT).sum(-1, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        best = Grid(*(torch.where(better, new, old) for new, old in zip(grid, best, strict=True)))
    return best


def group_width(layer: LayerProblem, group_size: int) -> int:
    """Columns in a group. Raises BadInput for a size that does not divide the layer's inputs."""
    n = layer.weight.shape[1]
    if group_size == -1:
        return n
    if n % group_size:
        raise BadInput(
            f"layer {layer.name}: group_size={group_size} does not divide its {n} inputs; give a divisor, or -1"
        )
    return group_size


def pack(
    codes: Tensor, grid: Grid, *, bits: int, group_size: int, symmetric: bool, permutation: Tensor | None = None
) -> Uniform:
    """Store codes (m, n) of a grid whose tensors are (m, G). `permutation`: as for `Uniform.pack`."""
    zero = None if symmetric else (-grid.low).to(torch.uint8)
    return Uniform.pack(codes, grid.scale, zero, bits=bits, group_size=group_size, permutation=permutation)
