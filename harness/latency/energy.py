"""Energy of a turn, where the processor (RAPL) or the GPU (NVML) counts it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from harness.engine.record import cost
from harness.engine.usage import energy, energy_since
from harness.latency.rounds import Phases, Turn


class Metered:
    """A contender whose turns are metered: `joules` of all of them so far, None where nothing counts."""

    def __init__(self, turn: Turn, device: str):
        self._turn, self._counter = turn, counter(device)
        self.turns, self.joules = 0, None if self._counter is None else 0.0

    def __call__(self) -> Phases:
        if self._counter is None:
            return self._turn()
        before = self._counter()
        phases = self._turn()
        self.joules = (self.joules or 0.0) + self._counter(before)
        self.turns += 1
        return phases

    def read(self) -> dict[str, Any]:
        """Joules of a turn, as a record keeps a figure: measured, or missing."""
        return cost(self.joules / self.turns if self.joules is not None and self.turns else None)


def counter(device: str) -> Callable[..., Any] | None:
    """Without an argument a reading; with an earlier reading the joules since. None where nothing can be read."""
    if device.startswith("cuda"):
        return _nvml(int(device.partition(":")[2] or 0))
    if not energy():
        return None
    return lambda before=None: energy() if before is None else energy_since(before, energy()) or 0.0


def _nvml(index: int) -> Callable[..., Any] | None:
    """The GPU's own counter (Volta and later), in millijoules; NVML comes with the driver, its binding with pynvml."""
    with suppress(Exception):  # no binding, no driver, or a GPU that does not count: there is nothing to read
        import pynvml  # type: ignore[import-not-found, unused-ignore]

        pynvml.nvmlInit()
        read = functools.partial(pynvml.nvmlDeviceGetTotalEnergyConsumption, pynvml.nvmlDeviceGetHandleByIndex(index))
        read()
        return lambda before=None: read() if before is None else (read() - before) / 1e3
    return None
