"""What this machine can do at most: the fastest of several ways to read memory, and the rate of matrix products."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.latency.rounds import timer
from harness.packed import kernels

CPU_BYTES, CUDA_BYTES = 256 << 20, 1 << 30
"""Of the buffer that is read: more than any cache holds."""
PIECE = 8 << 20
"""Bytes that a CPU reads at a time, as many as a small weight has. The fastest piece counts: on a shared machine the
others were interrupted."""
CPU_WIDTH, CUDA_WIDTH = 256, 4096
"""Rows and columns of the matrices whose product gives the rate of arithmetic."""
Read = Callable[[Tensor], object]


@dataclass(frozen=True)
class Ceilings:
    """`bandwidth` in bytes per second by the fastest reader, which `reader` names; `rate` in operations per second (a
    multiplication and an addition are two) of a large product of matrices of the device's `activations`. The rate of
    int8 operations is not measured: torch has no fast product to measure it by."""

    device: str
    threads: int
    bandwidth: float
    reader: str
    rate: float

    def __str__(self) -> str:
        where = f"{self.threads} thread{'s' * (self.threads > 1)}" if self.device == "cpu" else self.device
        dtype = str(activations(self.device)).removeprefix("torch.")
        return (
            f"{where}: reads {self.bandwidth / 1e9:.1f} GB/s ({self.reader}, the best of "
            f"{len(readers(self.device))} readers), {dtype} products {self.rate / 1e9:.0f} Gop/s"
        )


@functools.cache
def measured(device: str, threads: int) -> Ceilings:
    """The ceilings with so many threads, which the caller has set: measured once in a process."""
    buffer = _buffer(device)
    best = {name: _speed(read, buffer) for name, read in readers(device).items()}
    reader = max(best, key=lambda name: best[name])
    return Ceilings(device, threads, best[reader], reader, _rate(device))


def bandwidth(ceilings: Ceilings) -> float:
    """Bytes per second that the fastest reader gets just now."""
    return _speed(readers(ceilings.device)[ceilings.reader], _buffer(ceilings.device))


def readers(device: str) -> dict[str, Read]:
    """Ways to read a buffer of bytes, by name. A copy reads one half of it and writes the other, so that all of it
    moves once."""
    if device.startswith("cuda"):
        return {"copy": _copy, "sum": _sum}
    found: dict[str, Read] = {"torch sum": _sum, "torch max": _max}
    native = kernels.native()
    if native is not None:
        for streams, ahead, once in itertools.product((1, 2, 4, 8), (0, 1024, 4096), (False, True)):
            if ahead or not once:
                past = " past the outer caches" if once else ""
                found[f"{streams} streams, {ahead} bytes ahead{past}"] = _native(native, streams, ahead, once)
    return found


def _native(native: Any, streams: int, ahead: int, once: bool) -> Read:
    def read(buffer: Tensor) -> object:
        native.set_threads(torch.get_num_threads())
        return native.read(buffer, streams, ahead, once)

    return read


def _sum(buffer: Tensor) -> object:
    return buffer.view(torch.float32).sum()


def _max(buffer: Tensor) -> object:
    return buffer.view(torch.int64).max()


def _copy(buffer: Tensor) -> object:
    half = len(buffer) // 2
    return buffer[:half].copy_(buffer[half:])


@functools.cache
def _buffer(device: str) -> Tensor:
    # Written, or all of it would be the one page of zeros that the system lends until then.
    return torch.full((CUDA_BYTES if device.startswith("cuda") else CPU_BYTES,), 1, dtype=torch.uint8, device=device)


def _speed(read: Read, buffer: Tensor) -> float:
    """Bytes per second of the fastest piece."""
    take = timer(str(buffer.device))
    pieces = [buffer] * 3 if buffer.is_cuda else buffer.split(PIECE)
    return max(piece.nbytes / take(lambda piece=piece: read(piece)) for piece in pieces)  # type: ignore[misc]


def activations(device: str) -> torch.dtype:
    """What the device's kernels multiply by: float32 on a CPU, bfloat16 on a GPU."""
    return torch.bfloat16 if device.startswith("cuda") else torch.float32


def _rate(device: str) -> float:
    width = CUDA_WIDTH if device.startswith("cuda") else CPU_WIDTH
    a, b = (torch.ones(width, width, device=device, dtype=activations(device)) for _ in range(2))
    least = min(timer(device)(lambda: a @ b) for _ in range(50))
    return 2 * width**3 / least
