"""`harness cite`: what to put into a paper that shows a suite's table."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from harness.cli.common import emit, json_option, ledger_option, limit_option, model_option, seeds_option


@click.command(short_help="Print a table's id, its command and its BibTeX.")
@click.argument("suite")
@seeds_option
@limit_option
@model_option
@ledger_option
@json_option
def cite(suite: str, ledger: str | None, as_json: bool, **protocol: Any) -> None:
    """Print the ids of the tables of SUITE, the command that makes them again, and BibTeX of the methods in them."""
    from harness.engine.ledger import open_ledger
    from harness.engine.suite import load_suite
    from harness.tables.bibliography import references
    from harness.tables.build import Scope, tabulate

    scope = Scope.of(load_suite(suite), **protocol)
    with closing(open_ledger(ledger, write=False)) as store:
        tables = tabulate(scope, store)
    metrics = [call.name for problem in scope.problems for call in problem.metrics]
    entries, without = references([point.method for point in scope.points], metrics, scope.suite.track)
    ids = {table.title: table.citation.id for table in tables if table.citation}
    if as_json:
        emit({"tables": ids, "command": scope.command, "bibtex": entries, "without_paper": without})
        return
    for title, identity in ids.items():
        click.echo(f"% {identity}  ({title})")
    click.echo(f"% made by: {scope.command}")
    if without:
        click.echo(f"% without a paper of their own: {', '.join(without)}")
    click.echo("\n" + "\n\n".join(entries))
