"""`harness run`: compute what is missing of a suite, and write its table."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.common import console, emit, json_option, ledger_option, limit_option, model_option, seeds_option

if TYPE_CHECKING:
    from harness.engine.run import RunResult
    from harness.engine.suite import Suite

RESULTS = Path("results")
"""Tables of whole suites; those of a run with another protocol than the suite's go to `local` in it."""


@click.command(short_help="Run what is missing of a suite; write its table.")
@click.argument("suite")
@click.option("--only", metavar="EXPR", help="Only the trials of a method, as gptq or 'gptq(bits=3)'.")
@seeds_option
@limit_option
@model_option
@click.option("--jobs", type=int, metavar="N", help="Trials at once. [default: as cores and memory allow]")
@click.option("--dry-run", is_flag=True, help="Show what would be run; compute and write nothing.")
@click.option("--resume/--fresh", default=True, help="Go on where the ledger stands (the default), or compute anew.")
@click.option("--retry-failed", is_flag=True, help="Run failed trials again; otherwise they stay failed.")
@ledger_option
@json_option
def run(suite: str, dry_run: bool, resume: bool, jobs: int | None, retry_failed: bool, ledger: str | None,
        as_json: bool, **protocol: Any) -> int:  # fmt: skip
    """Run the trials of SUITE that the ledger does not have, and write its table.

    SUITE is the name of a suite (see `harness list suites`) or the path of a suite file. Exit status 0 if every trial
    succeeded, 1 if some failed, 2 for bad input.
    """
    from harness.engine.suite import load_suite

    loaded = load_suite(suite)
    if dry_run:
        return _preview(loaded, ledger, as_json, **protocol)
    from harness.cli.progress import reporter
    from harness.engine.run import run_suite

    with ExitStack() as stack:
        on_event = emit if as_json else stack.enter_context(reporter())
        result = run_suite(
            loaded, ledger=ledger, jobs=jobs, fresh=not resume, retry_failed=retry_failed, on_event=on_event, **protocol
        )
    protocol.pop("only")
    _report(loaded, result, ledger, as_json, protocol)
    return result.exit_status


def _preview(suite: Suite, ledger: str | None, as_json: bool, **protocol: Any) -> int:
    from harness.engine.plan import plan_suite
    from harness.engine.run import preview

    waiting = 0
    for trial, status in preview(plan_suite(suite, **protocol), ledger):
        waiting += status is None
        if as_json:
            emit({"event": "dry-run", "trial": trial.hash, "label": trial.label, "status": status})
        else:
            click.echo(f"{trial.hash[:12]}  {status or 'to run':8}  {trial.label}")
    if not as_json:
        click.echo(f"{waiting} to run")
    return 0


def _report(suite: Suite, result: RunResult, ledger: str | None, as_json: bool, protocol: dict[str, Any]) -> None:
    """Write the table's files, show it, and say where it is."""
    from contextlib import closing

    from harness.engine.ledger import open_ledger
    from harness.tables import write_files
    from harness.tables.build import Scope, tabulate
    from harness.tables.terminal import print_tables

    with closing(open_ledger(ledger, write=False)) as store:
        tables = tabulate(Scope.of(suite, **protocol), store)
    paths = write_files(tables, folder(suite.name, protocol))
    if as_json:
        emit({"event": "table", "files": [str(path) for path in paths]})
        return
    print_tables(tables, console())
    click.echo(
        f"\n{result.planned} trials: {result.done} run, {result.cached} from the ledger, {result.failed} failed; "
        f"{result.seconds:.1f} s"
    )
    for path in paths:
        click.echo(f"wrote {path}")


def folder(suite: str, protocol: dict[str, Any]) -> Path:
    """Where a suite's table is written: results/SUITE; for another protocol, a folder of its own in results/local."""
    given = {name: str(value).replace("/", "-") for name, value in sorted(protocol.items()) if value is not None}
    variant = "-".join([suite, *(f"{name}-{value}" for name, value in given.items())])
    return RESULTS / "local" / variant if given else RESULTS / suite
