"""Who holds a lease: a process, named so that another one on the same machine can tell whether it still runs."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import uuid
from contextlib import suppress
from pathlib import Path

import psutil


def new_owner() -> str:
    """A name for one run of this process: `machine/pid/start/unique`."""
    start = psutil.Process().create_time()
    return f"{_machine()}/{os.getpid()}/{start:.2f}/{uuid.uuid4().hex[:8]}"


def is_alive(owner: str) -> bool:
    """Whether the process may still run: False only for one of this machine that is certainly gone."""
    machine, pid, start, _ = owner.split("/")
    if machine != _machine():
        return True
    with suppress(psutil.Error):
        process = psutil.Process(int(pid))
        return abs(process.create_time() - float(start)) < 1 and process.status() != psutil.STATUS_ZOMBIE
    return False


@functools.cache
def _machine() -> str:
    """This machine since it was started, and this space of process numbers (a container has its own)."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]
