"""What a trial ran on: recorded with every result, never part of a trial's hash."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import harness

PACKAGES = (
    "torch", "numpy", "scipy", "transformers", "tokenizers", "safetensors", "lm_eval", "pyarrow", "scikit-learn",
    "sqlalchemy", "pydantic",
)  # fmt: skip
"""Whose versions can change a result, or how it is stored."""
_SIMD = ("amx_tile", "avx512_vnni", "avx512f", "avx2", "avx", "asimd", "neon")
"""Vector instructions, best first."""


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment(*, jobs: int | None = None, threads: int | None = None) -> dict[str, Any]:
    """Versions and machine of a run with `jobs` workers of `threads` threads. Holds no names of hosts or folders."""
    return {"jobs": jobs, "threads": threads, **_fixed()}


@functools.cache
def _fixed() -> dict[str, Any]:
    from harness.packed import kernels

    return {
        "harness": harness.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": packages(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        **cpu(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": gpus(),
        "kernels": kernels.describe(),
        "data_mirror": bool(os.environ.get("HARNESS_DATA")),
    }


def packages() -> dict[str, str]:
    """Installed versions, of the packages that are there."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def cpu() -> dict[str, Any]:
    """The processor's model and its best vector instructions."""
    model, flags = platform.processor() or platform.machine(), set()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
                break
    return {"cpu": model, "simd": next((name for name in _SIMD if name in flags), "none")}


def gpus() -> list[dict[str, str]]:
    """NVIDIA GPUs, without importing torch."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    fields = ("name", "memory.total", "driver_version")
    command = [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [dict(zip(fields, line.split(", "), strict=False)) for line in output.splitlines()]


def commit() -> str | None:
    """The commit of this checkout, with `+` where tracked files were changed; None outside a checkout.

    Results are not counted: a run writes its tables there, and they change nothing of what the next one computes.
    """
    return commit_of(Path(__file__).parents[2])


def commit_of(folder: Path) -> str | None:
    if not (folder / ".git").exists() or shutil.which("git") is None:
        return None
    git = ["git", "-C", str(folder)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        status = [*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results"]
        changed = subprocess.run(status, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if changed.strip() else "")
