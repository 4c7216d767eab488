"""`harness publish` and `harness import`: results that others can recompute."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from harness.cli.common import emit, json_option, ledger_option, limit_option, model_option, seeds_option
from harness.cli.run import folder


@click.command(short_help="Write a suite's tables and records for others.")
@click.argument("suite")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="The folder. [default: results/SUITE]")
@seeds_option
@limit_option
@model_option
@ledger_option
@json_option
def publish(suite: str, to: Path | None, ledger: str | None, as_json: bool, **protocol: Any) -> None:
    """Write the tables of SUITE with its records, per-item scores and environments, and a manifest of their hashes.

    `harness import` reads the folder into a ledger, where the same tables come out with the same ids.
    """
    from harness.engine.ledger import open_ledger
    from harness.engine.suite import load_suite
    from harness.tables.bundle import publish as write
    from harness.tables.scope import Scope

    loaded = load_suite(suite)
    with closing(open_ledger(ledger, write=False)) as store:
        paths = write(Scope.of(loaded, **protocol), store, to or folder(loaded.name, protocol))
    for path in paths:
        if as_json:
            emit({"file": str(path), "bytes": path.stat().st_size})
        else:
            click.echo(f"wrote {path}")


@click.command("import", short_help="Read published results into a ledger.")
@click.argument("bundle", type=click.Path(path_type=Path))
@ledger_option
@json_option
def import_(bundle: Path, ledger: str | None, as_json: bool) -> None:
    """Read the records of a published folder into the ledger, after checking that no file of it was changed."""
    from dataclasses import asdict

    from harness.engine.ledger import open_ledger
    from harness.tables.bundle import import_bundle, read_manifest

    read_manifest(bundle.parent if bundle.name == "manifest.json" else bundle)
    with closing(open_ledger(ledger)) as store:
        done = import_bundle(bundle, store)
        name = store.name
    if as_json:
        emit({**asdict(done), "ledger": name})
        return
    click.echo(f"{done.suite}: {done.new} records entered into {name}, {done.known} were there already")
    if done.differing:
        click.echo(
            f"{len(done.differing)} of those there differ in their figures; the ledger's were kept (first: "
            f"{done.differing[0]})"
        )
    for title, identity in done.tables.items():
        click.echo(f"{title}: {identity}")
