"""Interleaved rounds: two contenders timed so that whatever slows the machine falls on both.

A round is A B B A, every second one B A A B, so that a drift within it cancels to first order. The memory is read at
the beginning and at the end of each, which gives the limit of that round. A turn of a contender gives the seconds of
each of its phases (a product; or the first token and those after it).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Phases = Mapping[str, float]
"""Seconds by phase."""
Turn = Callable[[], Phases]
Timer = Callable[[Callable[[], object]], float]
"""Seconds that a call takes."""


@dataclass(frozen=True)
class Rounds:
    """Seconds by phase, (rounds, 2) each: of the method, of the baseline; `bandwidth` (rounds, 2) bytes per second."""

    method: dict[str, np.ndarray]
    baseline: dict[str, np.ndarray]
    bandwidth: np.ndarray

    def __len__(self) -> int:
        return len(self.bandwidth)


def interleave(method: Turn, baseline: Turn, read: Callable[[], float], *, rounds: int, warm_up: int = 1) -> Rounds:
    """Run both in turns; `read` gives the bytes per second that memory gives just now. Warm-up rounds are not kept."""
    turns = {"method": method, "baseline": baseline}
    kept: dict[str, list[list[Phases]]] = {"method": [], "baseline": []}
    speeds = []
    for number in range(-warm_up, rounds):
        first, second = ("method", "baseline") if number % 2 == 0 else ("baseline", "method")
        before = read()
        taken: dict[str, list[Phases]] = {"method": [], "baseline": []}
        for name in (first, second, second, first):
            taken[name].append(turns[name]())
        if number >= 0:
            speeds.append((before, read()))
            for name, phases in taken.items():
                kept[name].append(phases)
    return Rounds(_by_phase(kept["method"]), _by_phase(kept["baseline"]), np.array(speeds))


def _by_phase(rounds: list[list[Phases]]) -> dict[str, np.ndarray]:
    return {phase: np.array([[one[phase] for one in turns] for turns in rounds]) for phase in rounds[0][0]}


def timer(device: str) -> Timer:
    """The clock of a device: the wall's for a CPU, events on the stream for a GPU."""
    return cuda_seconds if device.startswith("cuda") else wall_seconds


def wall_seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cuda_seconds(call: Callable[[], object]) -> float:
    """Between two events on the current stream: what the device took, whenever Python was done queueing it."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def spread(seconds: np.ndarray) -> float:
    """How much rounds (rounds, 2) differ: half the distance of the quartiles of their medians, over the median.

    >>> spread(np.array([[1.0, 1.0], [1.0, 1.0], [1.2, 1.2], [0.8, 0.8]]))
    0.05
    """
    medians = np.median(seconds, axis=1)
    low, middle, high = np.quantile(medians, (0.25, 0.5, 0.75))
    return round(float((high - low) / 2 / middle), 12)


def plain(rounds: Rounds) -> dict[str, Any]:
    """The rounds as a record keeps them."""
    return {
        "method": {phase: values.tolist() for phase, values in rounds.method.items()},
        "baseline": {phase: values.tolist() for phase, values in rounds.baseline.items()},
        "bandwidth": rounds.bandwidth.tolist(),
    }
