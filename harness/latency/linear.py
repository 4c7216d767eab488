"""Products of the layers of a block, timed: each turn with the next copy of them, so that none is still in a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.latency import weights
from harness.latency.ceilings import activations
from harness.latency.rounds import Phases, Timer, wall_seconds
from harness.packed import CompressedLinear, PackedWeight

CACHE = 256 << 20
"""Bytes that the copies of the layers fill together: more than any cache holds."""
FEWEST, MOST = 2, 20
"""Products in a turn."""
TURN = 0.02
"""Seconds that a turn should take."""
Make = Callable[[int, int], CompressedLinear]
"""(outputs, inputs) -> a layer with random weights."""


@dataclass
class Products:
    """One contender: copies of the layers of a block (`blocks`), and an input (rows, n) for each width n.

    Calling it is a turn: the seconds of the shortest of some passes through a block, each through the next copy. The
    shortest: on a shared machine the others were interrupted, and so were those of the limit, of which the best counts.
    """

    blocks: list[list[nn.Module]]
    inputs: dict[int, Tensor]
    timer: Timer = wall_seconds
    calls: int = FEWEST
    at: int = 0

    def __call__(self) -> Phases:
        seconds = []
        for _ in range(self.calls):
            block = self.blocks[self.at % len(self.blocks)]
            seconds.append(self.timer(lambda block=block: self._pass(block)))  # type: ignore[misc]
            self.at += 1
        return {"product": min(seconds)}

    def _pass(self, block: list[nn.Module]) -> None:
        with torch.inference_mode():
            for layer in block:
                layer(self.inputs[layer.in_features])  # type: ignore[index]


def contender(shapes: list[tuple[int, int]], make: Make, inputs: dict[int, Tensor], timer: Timer) -> Products:
    """The layers of a block in enough copies, and as many products a turn as take long enough to be timed."""
    first = [make(*shape) for shape in shapes]
    size = stored_bytes(first)
    copies = max(2, -(-CACHE // max(size, 1)))
    blocks = [first, *([copied(layer) for layer in first] for _ in range(min(copies, 1000) - 1))]
    device = next(iter(inputs.values())).device
    found = Products([[layer.to(device) for layer in block] for block in blocks], inputs, timer)
    once = found()["product"]
    found.calls = max(FEWEST, min(MOST, int(TURN / once)))
    return found


def inputs_of(shapes: list[tuple[int, int]], rows: int, device: str, generator: torch.Generator) -> dict[int, Tensor]:
    """An input for each width, (rows, n) of the `activations` of the device."""
    widths = dict.fromkeys(n for _, n in shapes)
    return {n: torch.randn(rows, n, generator=generator).to(device, activations(device)) for n in widths}


def copied(layer: CompressedLinear) -> CompressedLinear:
    return CompressedLinear(weights.copied(layer.weight.packed), kernel=layer.kernel)


def stored_bytes(layers: list[Any]) -> int:
    """What must be read for one pass: the stored bytes of every weight."""
    return sum(packed.bits // 8 for packed in packed_of(layers))


def packed_of(layers: list[Any]) -> list[PackedWeight]:
    return [layer.weight.packed for layer in layers]


def least_seconds(stored: float, operations: float, bandwidth: np.ndarray, rate: float) -> np.ndarray:
    """The limit: what the bytes take at the bandwidth of each round, or the arithmetic at its peak, if that is longer.

    `bandwidth` (rounds, 2) bytes per second, of which the better counts; `rate` operations per second, 0 where it is
    not known. Gives (rounds,) seconds.
    """
    moved = stored / bandwidth.max(axis=1)
    return np.maximum(moved, operations / rate) if rate else moved


def operations(layers: list[Any], rows: int) -> float:
    """Floating operations of a pass: two for every multiplication that the format cannot leave out; 0 for layers that
    round their activations, whose products are integers'."""
    if any(layer.kernel == "int8" for layer in layers):
        return 0.0
    return 2.0 * rows * sum(packed.multiply_adds for packed in packed_of(layers))
