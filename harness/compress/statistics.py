"""What the calibration inputs of a layer say, in the few numbers that methods use.

Each function takes a layer and makes one pass over its inputs. Call them as `layer.statistic("activations",
activations)`: layers with the same input (q, k and v) then share one result, which must not be modified.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.compress.problem import LayerProblem
from harness.errors import BadInput, TrialFailed

STRIP = 512
"""Rows of a symmetric product that are computed at a time."""
SAMPLED_ROWS = 512
GOLDEN = (5**0.5 - 1) / 2


@torch.no_grad()
def hessian(layer: LayerProblem) -> Tensor:
    """(n, n): 2/N sum x xT over the N rows of the layer's inputs, undamped (paper key frantar2022gptq).

    Accumulated as a running mean in the dtype of the weight. Raises BadInput without rows, TrialFailed for inputs that
    are not finite.
    """
    n = layer.weight.shape[1]
    total, seen = layer.weight.new_zeros(n, n), 0
    for x in _nonempty(layer):
        kept, seen = seen, seen + len(x)
        add_gram(total, x, keep=kept / seen, scale=2 / seen)
    return _finite(mirror(total), layer)


@torch.no_grad()
def paired_hessian(layer: LayerProblem) -> tuple[Tensor, Tensor]:
    """H = 2/N sum x xT and D = 2/N sum (y - x) xT, both (n, n), undamped.

    x are the inputs in the compressed prefix, y those of the original model for the same tokens: what GPTAQ and ResComp
    need. Raises as `hessian` does.
    """
    n = layer.weight.shape[1]
    H, D, seen = layer.weight.new_zeros(n, n), layer.weight.new_zeros(n, n), 0
    for x, original in layer.paired_inputs():
        if len(x):
            kept, seen = seen, seen + len(x)
            add_gram(H, x, keep=kept / seen, scale=2 / seen)
            D.addmm_((original - x).T, x, beta=kept / seen, alpha=2 / seen)
    if not seen:
        raise _no_rows(layer)
    return _finite(mirror(H), layer), _finite(D, layer)


def add_gram(total: Tensor, x: Tensor, *, keep: float, scale: float) -> None:
    """total = keep * total + scale * xT x in place, of which only strips up to the diagonal are computed.

    `x` is (rows, n) and `total` (n, n); `mirror` fills in the rest.
    """
    for a in range(0, len(total), STRIP):
        b = a + STRIP
        total[a:b, :b].addmm_(x[:, a:b].T, x[:, :b], beta=keep, alpha=scale)


def mirror(lower: Tensor) -> Tensor:
    """Copy what is below the diagonal to above it, in place."""
    for a in range(0, len(lower), STRIP):
        strip = lower[a : a + STRIP]
        lower[:a, a : a + STRIP] = strip[:, :a].T
        square = strip[:, a : a + STRIP]
        square.copy_(square.tril() + square.tril(-1).T)
    return lower


def dead_columns(hessian: Tensor) -> Tensor:
    """(n,) bool: inputs that are zero in all of the calibration data."""
    return hessian.diagonal() == 0


@dataclass(frozen=True)
class Activations:
    """Per input channel, (n,) float32: mean and largest magnitude and the L2 norm over all `rows`; `sample` is
    (at most 512, n), rows spread evenly over the calibration data."""

    mean_abs: Tensor
    max_abs: Tensor
    l2: Tensor
    sample: Tensor
    rows: int


@torch.no_grad()
def activations(layer: LayerProblem) -> Activations:
    """One pass over the inputs. Raises as `hessian` does."""
    n = layer.weight.shape[1]
    total, squares = (layer.weight.new_zeros(n, dtype=torch.float64) for _ in range(2))
    largest = layer.weight.new_zeros(n)
    sample, priority = layer.weight.new_zeros(0, n), layer.weight.new_zeros(0, dtype=torch.float64)
    rows = 0
    for x in _nonempty(layer):
        magnitude = x.abs()
        total += magnitude.sum(0, dtype=torch.float64)
        squares += magnitude.square().sum(0, dtype=torch.float64)
        largest = torch.maximum(largest, magnitude.amax(0))
        sample, priority = _sampled(sample, priority, x, rows)
        rows += len(x)
    found = Activations((total / rows).float(), largest, squares.sqrt().float(), sample, rows)
    _finite(found.l2, layer)
    return found


def _sampled(sample: Tensor, priority: Tensor, x: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """The rows with the lowest multiples of the golden ratio modulo 1: evenly spread, however many come."""
    number = torch.arange(start, start + len(x), dtype=torch.float64, device=x.device)
    priority = torch.cat([priority, (number * GOLDEN).frac()])
    lowest = priority.argsort()[:SAMPLED_ROWS].sort().values
    kept, new = lowest[lowest < len(sample)], lowest[lowest >= len(sample)] - len(sample)
    return torch.cat([sample[kept], x[new]]), priority[lowest]


def _nonempty(layer: LayerProblem) -> Iterator[Tensor]:
    empty = True
    for x in layer.inputs():
        if len(x):
            empty = False
            yield x
    if empty:
        raise _no_rows(layer)


def _no_rows(layer: LayerProblem) -> BadInput:
    return BadInput(f"layer {layer.name}: no calibration rows reach it; give at least one sample with one token")


def _finite(tensor: Tensor, layer: LayerProblem) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise TrialFailed(f"layer {layer.name}: its calibration inputs hold a number that is not finite")
    return tensor
