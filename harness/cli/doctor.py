"""`harness doctor`: what this machine has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import click

from harness.cli.common import emit, json_option


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
    from harness.latency.machine import look

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
        "timing": str(look()),
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


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return "; ".join(_text(one) for one in value) if isinstance(value, list) else str(value)
