"""`harness doctor`: what this machine has."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import click

from harness.cli.common import emit, json_option

NOISE = 0.05
"""Spread of a repeated fixed computation above which timings of this machine should not be trusted."""
MODERATE_LOAD = 0.25
"""Load by others, per core, above which it is named."""


@click.command(short_help="Show what this machine has.")
@json_option
def doctor(as_json: bool) -> None:
    """Show what this machine has: threads, vector instructions, GPU, disk, versions, data mirror."""
    found = _look()
    if as_json:
        emit(found)
        return
    for key, value in found.items():
        click.echo(f"{key + ':':16}{_text(value)}")


def _look() -> dict[str, Any]:
    from harness.engine.environment import environment

    known = environment()
    here = shutil.disk_usage(".")
    memory = _memory()
    return {
        "harness": known["harness"],
        "commit": known["commit"] or "not a checkout",
        "python": known["python"],
        "packages": known["packages"],
        "system": known["system"],
        "cpu": known["cpu"],
        "simd": known["simd"],
        "kernels": known["kernels"],
        "cores": known["cores"],
        "threads": os.environ.get("OMP_NUM_THREADS", "as many as cores (OMP_NUM_THREADS is not set)"),
        "memory": f"{memory[1]:.1f} GB, {memory[0]:.1f} GB available",
        "gpu": known["gpus"] or "none",
        "disk": f"{here.total / 1e9:.0f} GB, {here.free / 1e9:.0f} GB free",
        "data mirror": _mirror(),
        "ledger": _ledger(),
        "timing": _timing(known["cores"]),
    }


def _memory() -> tuple[float, float]:
    import psutil

    memory = psutil.virtual_memory()
    return memory.available / 1e9, memory.total / 1e9


def _mirror() -> str:
    where = os.environ.get("HARNESS_DATA")
    if not where:
        return (
            "none (HARNESS_DATA is not set): data comes from the Hub; fetch one with "
            "`hf download --repo-type dataset ID`, or set HARNESS_DATA to a mirror's folder"
        )
    if not Path(where).is_dir():
        return f"{where} is not a folder; set HARNESS_DATA to a mirror's folder, or unset it"
    count = sum(1 for _ in Path(where).glob("*/*/*/*.parquet"))
    return f"{where} ({count} Parquet files)"


def _ledger() -> str:
    from contextlib import closing

    from harness.engine.ledger import open_ledger
    from harness.errors import BadInput

    try:
        with closing(open_ledger(write=False)) as store:
            return f"{store.name} ({sum(store.suites().values())} trials)"
    except BadInput as error:
        return str(error).removeprefix("ledger ")


def _timing(cores: int) -> str:
    """How much a fixed piece of work varies, and whether others are using the machine."""
    seconds = sorted(_work() for _ in range(15))
    spread = (seconds[-3] - seconds[2]) / seconds[7]
    load = os.getloadavg()[0] / cores
    words = f"a fixed computation varies by {spread:.0%}, load {load:.2f} a core"
    if spread > NOISE or load > MODERATE_LOAD:
        return f"{words}: a noisy machine; let it rest before you trust timings"
    return f"{words}: quiet"


def _work() -> float:
    start = time.perf_counter()
    sum(range(400_000))
    return time.perf_counter() - start


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return "; ".join(_text(one) for one in value) if isinstance(value, list) else str(value)
