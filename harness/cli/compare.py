"""`harness compare`: two methods of a suite, with everything a reviewer asks for."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import Any

import click

from harness.cli.common import emit, json_option, ledger_option, limit_option, model_option, seeds_option


@click.command(short_help="Compare two methods of a suite in full.")
@click.argument("method")
@click.argument("than")
@click.option("--suite", required=True, metavar="SUITE", help="The suite whose records are compared.")
@seeds_option
@limit_option
@model_option
@ledger_option
@json_option
def compare(method: str, than: str, suite: str, ledger: str | None, as_json: bool, **protocol: Any) -> int:
    """Compare METHOD with THAN, as gptq or 'gptq(bits=3)', on every problem and metric of a suite.

    Rows are paired as in the suite's table: same values of the parameters both have, same items, same seeds. What
    cannot be compared (another protocol, other items, times of another machine) is refused with the differing field.
    Exit status 1 if some comparison was refused, 2 if all were.
    """
    from harness.engine.ledger import open_ledger
    from harness.engine.suite import load_suite
    from harness.errors import BadInput
    from harness.tables.compare import analyse, sentences
    from harness.tables.scope import Scope

    with closing(open_ledger(ledger, write=False)) as store:
        found = list(analyse(Scope.of(load_suite(suite), **protocol), method, than, store))
    refused = [one for one in found if one.comparison is None]
    if len(refused) == len(found):
        raise BadInput(f"{refused[0].metric} on {refused[0].problem}: {refused[0].refused}")
    for number, one in enumerate(found):
        if as_json:
            emit(asdict(one))
            continue
        arrow = "higher" if one.higher_is_better else "lower"
        heading = f"{one.method} against {one.than}: {one.metric} on {one.problem}"
        click.echo("\n" * (number > 0) + click.style(heading, bold=True) + (f" ({arrow} is better)" * bool(one.seeds)))
        click.echo("\n".join(f"  {line}" for line in sentences(one)))
    return 1 if refused else 0
