"""`harness table`: a suite's results as they stand."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from harness.cli.common import console, ledger_option, limit_option, model_option, seeds_option
from harness.cli.run import folder


@click.command(short_help="Print a suite's table.")
@click.argument("suite")
@click.option(
    "--format",
    "form",
    default="terminal",
    metavar="NAME",
    help="terminal (default), markdown, csv, json, html or latex.",
)
@click.option(
    "--correction",
    type=click.Choice(["holm", "bh", "none"]),
    default="holm",
    help="How p values are adjusted: holm (default), bh (Benjamini-Hochberg), none.",
)
@click.option("--write", is_flag=True, help="Also write the files that `harness run` writes.")
@seeds_option
@limit_option
@model_option
@ledger_option
def table(suite: str, form: str, write: bool, ledger: str | None, **protocol: Any) -> None:
    """Print the table of SUITE from what the ledger has. Nothing is computed but statistics."""
    from harness.engine.ledger import open_ledger
    from harness.engine.suite import load_suite
    from harness.errors import BadInput, nearest
    from harness.tables import FORMATS, render, write_files
    from harness.tables.build import Scope, tabulate
    from harness.tables.terminal import print_tables

    if form not in ("terminal", *FORMATS):
        raise BadInput(f"--format {form!r} is not accepted; {nearest(form, ('terminal', *FORMATS))}")
    loaded = load_suite(suite)
    scope = Scope.of(loaded, **protocol)
    if protocol["correction"] == "holm":
        protocol.pop("correction")  # the usual one has no folder of its own
    with closing(open_ledger(ledger, write=False)) as store:
        tables = tabulate(scope, store)
    if form == "terminal":
        print_tables(tables, console())
    else:
        click.echo(render(tables, form).rstrip("\n"))
    if write:
        for path in write_files(tables, folder(loaded.name, protocol)):
            click.echo(f"wrote {path}", err=True)
