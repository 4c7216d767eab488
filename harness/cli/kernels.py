"""`harness kernels`: the GPU kernels, listed, checked and timed.

Needs harness_kernels (from a checkout: PYTHONPATH=.:kernels/src), torch, and what each command names.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from harness.cli.common import console, emit, json_option
from harness.errors import BadInput, nearest

if TYPE_CHECKING:
    from harness_kernels.gpu.bench import Row
    from harness_kernels.gpu.registry import Kernel

only_option = click.option("--only", metavar="TEXT", help="Only kernels with this in their names.")


@click.group(short_help="List, check and time the GPU kernels.")
def kernels() -> None:
    """List, check and time the GPU kernels.

    On a bare GPU machine, from a checkout: PYTHONPATH=.:kernels/src python -m harness kernels check
    """


@kernels.command("list", short_help="What there is.")
@only_option
@json_option
def list_kernels(only: str | None, as_json: bool) -> None:
    """What there is: each kernel, the language it is written in, the stored format that it reads."""
    for kernel in _chosen(only):
        if as_json:
            emit({"name": kernel.name, "language": kernel.language, "formats": kernel.formats})
        else:
            click.echo(f"{kernel.name:26}{kernel.language:8}{kernel.formats}")


@kernels.command(short_help="Hold each kernel to its float64 reference.")
@click.option(
    "--device",
    type=click.Choice(["cuda", "cpu"]),
    default="cuda",
    show_default=True,
    help="cpu: CUDA sources as C++, Triton in its interpreter; slow, the same results.",
)
@click.option("--seed", type=int, default=0, metavar="N", help="Of the random input.")
@only_option
@json_option
def check(device: str, seed: int, only: str | None, as_json: bool) -> int:
    """Hold each kernel to its float64 reference, on random input of odd shapes, with outputs that hold NaNs before.

    Exit status 0 if all hold, 1 with a line for each that does not.
    """
    chosen = _chosen(only)
    with _ready(device, chosen):
        checks = _module("checks")
        verdicts = []
        for verdict in checks.check(chosen, device, seed=seed):
            verdicts.append(verdict)
            if as_json:
                emit({**verdict.__dict__, "ok": verdict.ok})
            elif not verdict.ok:
                click.echo(f"FAIL  {verdict.kernel}: {verdict.shape}: {verdict.wrong}")
    held = sum(verdict.ok for verdict in verdicts)
    if not as_json:
        click.echo(f"{held} of {len(verdicts)} checks of {len(chosen)} kernels hold")
    return 0 if held == len(verdicts) else 1


@kernels.command(short_help="Time each kernel beside its peers and limits.")
@click.option(
    "--rounds", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="Interleaved rounds."
)
@only_option
@json_option
def bench(rounds: int, only: str | None, as_json: bool) -> None:
    """Time each kernel beside its peers, and beside the copy and the matrix product of the same rounds."""
    chosen = _chosen(only)
    with _ready("cuda", chosen):
        rows: list[Row] = []
        for row in _module("bench").measure(chosen, rounds=rounds):
            rows.append(row)
            if as_json:
                emit({**row.as_dict(), **_machine()})
    if not as_json:
        _print(rows)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"harness_kernels.gpu.{name}")
    except ImportError as error:
        missing = (error.name or "").split(".")[0]
        raise BadInput(
            f"{missing}: is not installed; "
            + (
                "pip install ./kernels, or PYTHONPATH=.:kernels/src"
                if missing == "harness_kernels"
                else "kernels need it"
            )
        ) from None


def _chosen(only: str | None) -> Sequence[Kernel]:
    every: list[Kernel] = _module("registry").kernels()
    chosen = [kernel for kernel in every if only is None or only in kernel.name]
    if not chosen:
        raise BadInput(f"--only: {only!r} is in no kernel's name; {nearest(str(only), [k.name for k in every])}")
    return chosen


def _ready(device: str, chosen: Sequence[Kernel]) -> contextlib.AbstractContextManager[None]:
    """Within it the kernels run on that device; BadInput says in one line what they lack there."""
    languages = {kernel.language for kernel in chosen}
    try:
        if device == "cuda":
            _module("launch").need_device()
        elif os.environ.get("TRITON_INTERPRET") != "1" and sys.modules.get("triton"):
            raise BadInput("TRITON_INTERPRET: is not set, and triton is loaded already; accepted is 1")
        else:
            os.environ["TRITON_INTERPRET"] = "1"
        if "Triton" in languages:
            _module("launch").need_triton("gemm")
        if device == "cuda":
            if "CUDA" in languages:
                _module("launch").need_cupy()
            return contextlib.nullcontext()
        emulate = _module("emulate")
        emulate.need_compiler()
    except RuntimeError as error:
        raise BadInput(str(error)) from error
    emulation: contextlib.AbstractContextManager[None] = emulate.emulation()
    return emulation


def _machine() -> dict[str, Any]:
    import torch

    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda}


def _print(rows: Sequence[Row]) -> None:
    from rich.table import Table

    peers = sorted({name for row in rows for name in row.ratios})
    machine = _machine()
    table = Table(title=f"{machine['device']}, torch {machine['torch']}, CUDA {machine['cuda']}")
    for title in ("work", "kernel"):
        table.add_column(title)
    for title in ("microseconds", "GB/s", "% of copy", "TFLOP/s", "% of matrix rate", *(f"times {p}" for p in peers)):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row.work,
            row.name,
            f"{row.seconds * 1e6:.1f}",
            f"{row.moved / row.seconds / 1e9:.0f}",
            f"{row.of_copy:.0%}",
            f"{row.operations / row.seconds / 1e12:.1f}",
            f"{row.of_rate:.0%}",
            *(f"{row.ratios[p]:.2f}" if p in row.ratios else "" for p in peers),
        )
    console().print(table)
