"""What a trial costs this process: time, memory and energy between two readings."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.engine.record import cost

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RAPL = Path("/sys/class/powercap")


class Meter:
    """Reads the clocks when made and again at `read`. `alone`: no other job of the run shares the processor, so that
    the package's energy is this trial's."""

    def __init__(self, *, alone: bool = True):
        self._alone = alone
        self._peak_is_ours = reset_peak()
        reset_device_peak()
        self._energy = energy()
        self._cpu = _cpu_seconds()
        self._start = time.perf_counter()

    def read(self) -> dict[str, dict[str, Any]]:
        joules = energy_since(self._energy, energy())
        return {
            "wall_seconds": cost(time.perf_counter() - self._start),
            "cpu_seconds": cost(_cpu_seconds() - self._cpu),
            # Without a reset the peak is that of the process's whole life, an upper bound.
            "peak_memory_bytes": cost(peak(), "measured" if self._peak_is_ours else "proxy"),
            "peak_device_bytes": cost(device_peak()),
            "energy_joules": cost(joules, "measured" if self._alone else "proxy"),
        }


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def reset_peak() -> bool:
    """Start the kernel's peak of resident memory anew (Linux); False where that cannot be done."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak() -> float:
    with suppress(OSError, StopIteration):
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _cuda() -> Any:
    """torch.cuda where a trial has loaded and used it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def reset_device_peak() -> None:
    if cuda := _cuda():
        cuda.reset_peak_memory_stats()


def device_peak() -> float | None:
    cuda = _cuda()
    return float(cuda.max_memory_allocated()) if cuda else None


def energy() -> dict[Path, int]:
    """Microjoules of each processor package so far, where RAPL can be read."""
    found = {}
    for counter in _RAPL.glob("intel-rapl:?/energy_uj"):
        with suppress(OSError, ValueError):
            found[counter] = int(counter.read_text())
    return found


def energy_since(before: dict[Path, int], after: dict[Path, int]) -> float | None:
    if not before or before.keys() != after.keys():
        return None
    total = 0
    for counter, start in before.items():
        used = after[counter] - start
        if used < 0:
            used += int((counter.parent / "max_energy_range_uj").read_text())
        total += used
    return total / 1e6
