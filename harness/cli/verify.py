"""`harness verify`: does every number of a printed table still hold?"""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.common import emit, json_option, ledger_option


@click.command(short_help="Recompute a printed table; say what does not hold.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--suite", metavar="SUITE", help="The suite or its file. [default: what the table's id and command name]")
@ledger_option
@json_option
def verify(file: Path, suite: str | None, ledger: str | None, as_json: bool) -> int:
    """Find the ids of the tables in FILE (.tex, .md, .json or .csv) and recompute them from the ledger.

    Exit status 0 if every printed number holds, 1 if one does not, 2 if the ledger has not a table's records.
    """
    from contextlib import closing
    from dataclasses import asdict

    from harness.engine.ledger import open_ledger
    from harness.engine.suite import load_suite
    from harness.tables.verify import explain, verify_file

    with closing(open_ledger(ledger, write=False)) as store:
        found = verify_file(file, store, load_suite(suite) if suite else None)
    for one in found:
        if as_json:
            emit({"file": str(file), "holds": one.holds, **asdict(one)})
        else:
            click.echo("\n".join(explain(one)))
    return 0 if all(one.holds for one in found) else 1
