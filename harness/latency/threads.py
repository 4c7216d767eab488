"""A fixed number of threads on fixed processors, for as long as something is timed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_TASKS = Path("/proc/self/task")
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


@contextmanager
def pinned(count: int) -> Iterator[list[int]]:
    """Compute with `count` threads, on as many processors of their own where the system can say so (Linux).

    Gives the processors' numbers, none where threads cannot be bound; what was before is restored.
    """
    threads, places = torch.get_num_threads(), _allowed()
    chosen = _spread(places)[:count]
    torch.set_num_threads(count)
    try:
        yield chosen if chosen and _bind(set(chosen)) else []
    finally:
        torch.set_num_threads(threads)
        if places:
            _bind(set(places))


def _allowed() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _spread(places: list[int]) -> list[int]:
    """One processor of each core first: two threads of one core share what is measured."""
    seen: set[str] = set()
    first: list[int] = []
    second: list[int] = []
    for place in places:
        core = str(place)
        with suppress(OSError):
            core = Path(_SIBLINGS.format(place)).read_text()
        (second if core in seen else first).append(place)
        seen.add(core)
    return first + second


def _bind(places: set[int]) -> bool:
    """All threads of this process; those started later inherit it."""
    try:
        tasks = [int(path.name) for path in _TASKS.iterdir()]
    except OSError:
        return False
    for task in tasks:
        with suppress(OSError):  # a thread that has just ended
            os.sched_setaffinity(task, places)
    return True
