"""The machine that times belong to, and how quiet it is."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput

NOISE = 0.05
"""Spread of a repeated fixed computation above which timings of this machine should not be trusted."""
MODERATE_LOAD = 0.25
"""Load by others, per core, above which it is named."""
STOLEN = 0.01
"""Part of the time that a hypervisor gave to others, above which it is named."""
_GOVERNORS = "cpu*/cpufreq/scaling_governor"
_CPUS = Path("/sys/devices/system/cpu")
_STAT = Path("/proc/stat")


def identity(device: str) -> dict[str, Any]:
    """What a time depends on: the processor, its vector instructions, the kernels, the GPU where one is used."""
    from harness.engine.environment import cores, cpu, gpus
    from harness.packed import kernels

    used = gpus() if device.startswith("cuda") else []
    return {**cpu(), "cores": cores(), "kernels": kernels.describe(), "build": kernels.build(), "gpus": used}


def title(device: str) -> str:
    """The machine in a signature."""
    known = identity(device)
    gpu = "".join(f", {one['name']}" for one in known["gpus"][:1])
    return f"{known['cpu']}, {known['simd']}, {known['cores']} cores{gpu}".replace("|", "/")


def require_device(device: Any) -> None:
    """BadInput for a device that torch does not know or this machine does not have."""
    if not isinstance(device, str) or not (device == "cpu" or device.startswith("cuda")):
        raise BadInput(f"problem: device={device!r} is not accepted; it takes cpu or cuda")
    if device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise BadInput(f"problem: device={device!r} is not accepted; torch finds no CUDA device here")


@dataclass(frozen=True)
class Quiet:
    """How quiet a machine is: `spread` of a short fixed computation, `load` per core, the part of the time that was
    `stolen` meanwhile by other guests of the host, and the processors' frequency `governor` ("" where unknown)."""

    spread: float
    load: float
    stolen: float
    governor: str

    @property
    def warnings(self) -> list[str]:
        """What speaks against trusting timings, empty on a quiet machine."""
        found = []
        if self.spread > NOISE:
            found.append(f"a fixed computation varies by {self.spread:.0%}")
        if self.load > MODERATE_LOAD:
            found.append(f"load {self.load:.2f} a core")
        if self.stolen > STOLEN:
            found.append(f"{self.stolen:.0%} of the time went to other guests of the host")
        if self.governor not in ("", "performance"):
            found.append(f"frequency governor {self.governor}: clocks change (`performance` keeps them)")
        return found

    def __str__(self) -> str:
        if self.warnings:
            return f"{'; '.join(self.warnings)}: a noisy machine; let it rest before you trust timings"
        return f"a fixed computation varies by {self.spread:.0%}, load {self.load:.2f} a core: quiet"


def look(repeats: int = 15) -> Quiet:
    """Watch the machine for a fraction of a second."""
    from harness.engine.environment import cores

    before = _times()
    seconds = sorted(_work() for _ in range(repeats))
    stolen = _stolen(before, _times())
    spread = (seconds[-3] - seconds[2]) / seconds[repeats // 2]
    return Quiet(spread, os.getloadavg()[0] / cores(), stolen, _governor())


def _work() -> float:
    start = time.perf_counter()
    sum(range(400_000))
    return time.perf_counter() - start


def _times() -> list[int]:
    """Ticks of all processors by what they were spent on (Linux), the eighth of them stolen."""
    with suppress(OSError, ValueError, IndexError):
        return [int(word) for word in _STAT.read_text().splitlines()[0].split()[1:9]]
    return []


def _stolen(before: list[int], after: list[int]) -> float:
    if len(before) < 8 or len(after) < 8:
        return 0.0
    spent = [end - start for start, end in zip(before, after, strict=True)]
    return spent[7] / max(1, sum(spent))


def _governor() -> str:
    """The governors in use, the slower ones first."""
    found = set()
    for path in _CPUS.glob(_GOVERNORS):
        with suppress(OSError):
            found.add(path.read_text().strip())
    return ", ".join(sorted(found, key=lambda name: name == "performance"))
