"""`harness claims`: do papers' claims hold here?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

import click

from harness.cli.common import emit, json_option, ledger_option

if TYPE_CHECKING:
    from harness.claims import Finding
    from harness.cli.progress import Event
    from harness.registry import Claim, Entry

_COLOURS = {"supported": "green", "not supported": "red", "inconclusive": "yellow"}


@click.command(short_help="Test papers' claims on this machine's records.")
@click.argument("name", required=False)
@click.option("--run/--no-run", default=True, help="Run what is missing first (the default), or use what there is.")
@click.option("--dry-run", is_flag=True, help="Show what would be run; compute and write nothing.")
@click.option("--jobs", type=int, metavar="N", help="Trials at once. [default: as cores and memory allow]")
@ledger_option
@json_option
def claims(name: str | None, run: bool, dry_run: bool, jobs: int | None, ledger: str | None, as_json: bool) -> None:
    """Test the claims of NAME, a method or a suite (of all methods without it), and print what became of each.

    What is missing of the suites is run first. Not supported is a result like any other: the model and the scale it was
    seen on stand beside it, and the paper's own figure.
    """
    from harness.claims import judge, select
    from harness.engine.ledger import NoLedger, open_ledger

    chosen = select(name)
    if dry_run:
        _preview(chosen, ledger, as_json)
        return
    if run:
        _run_missing(chosen, ledger, jobs, as_json)
    try:
        store = open_ledger(ledger, write=False)
    except NoLedger:
        _show(judge(chosen, None), as_json)
        return
    with closing(store):
        _show(judge(chosen, store), as_json)


def _rows(chosen: Sequence[tuple[Entry, Claim]]) -> dict[str, list[str]]:
    """By suite the rows that the claims rest on; those of a claim that fits no row are told by its finding."""
    from harness.claims import needed, scope_of
    from harness.errors import BadInput

    rows: dict[str, list[str]] = {}
    for entry, claim in chosen:
        try:
            rows.setdefault(claim.suite, []).extend(needed(entry, claim, scope_of(claim)))
        except BadInput:
            continue
    return {suite: list(dict.fromkeys(some)) for suite, some in rows.items()}


def _preview(chosen: Sequence[tuple[Entry, Claim]], ledger: str | None, as_json: bool) -> None:
    from harness.engine.plan import plan_suite
    from harness.engine.run import preview
    from harness.engine.suite import load_suite

    waiting = 0
    for suite, rows in _rows(chosen).items():
        for row in rows:
            for trial, status in preview(plan_suite(load_suite(suite), only=row), ledger):
                waiting += status is None
                if as_json:
                    emit({"suite": suite, "trial": trial.hash, "label": trial.label, "status": status})
                else:
                    click.echo(f"{trial.hash[:12]}  {status or 'to run':8}  {suite}: {trial.label}")
    if not as_json:
        click.echo(f"{waiting} to run")


def _run_missing(chosen: Sequence[tuple[Entry, Claim]], ledger: str | None, jobs: int | None, as_json: bool) -> None:
    """Run the rows of the claims, suite by suite; a suite that cannot be run is told, and the others go on."""
    from harness.cli.progress import reporter
    from harness.engine.run import run_suite
    from harness.errors import BadInput

    for suite, rows in _rows(chosen).items():
        for row in rows:
            try:
                if as_json:
                    run_suite(suite, ledger=ledger, only=row, jobs=jobs)
                else:
                    with reporter() as on_event:
                        run_suite(suite, ledger=ledger, only=row, jobs=jobs, on_event=_if_any(on_event))
            except BadInput as error:
                click.echo(f"harness: {suite} was not run: {error}", err=True)
                break


def _if_any(tell: Callable[[Event], None]) -> Callable[[Event], None]:
    """Tells of runs that have something to do: most rows of a ledger of claims are there already."""
    wanted = True

    def tell_some(event: Event) -> None:
        nonlocal wanted
        if event["event"] == "plan":
            wanted = event["pending"] > 0
        if wanted:
            tell(event)

    return tell_some


def _show(findings: Iterable[Finding], as_json: bool) -> None:
    counts: Counter[str] = Counter()
    for (method, _), group in groupby(findings, key=lambda one: (one.method, str(one.claim))):
        some = list(group)
        counts.update(one.verdict for one in some)
        if as_json:
            for one in some:
                emit({**asdict(one), "paper": one.claim.paper})
            continue
        first = some[0].claim
        click.echo(click.style(_statement(method, first), bold=True))
        click.echo(f"  the paper: {first.paper or 'gives no figure'}")
        for one in some:
            verdict = click.style(one.verdict, fg=_COLOURS.get(one.verdict))
            click.echo(f"  {verdict}: {_result(one)}")
        click.echo()
    if not as_json:
        click.echo(", ".join(f"{number} {verdict}" for verdict, number in counts.items()) or "no claim is registered")


def _statement(method: str, claim: Claim) -> str:
    from harness.params import format_call

    margin = f" by more than {claim.margin:g}" if claim.margin else ""
    return f"{format_call(method, claim.params)} is better than {claim.than}{margin} in {claim.metric}, {claim.suite}"


def _result(one: Finding) -> str:
    from harness.tables.model import Quantity

    where = f"{one.row} against {one.than}, {one.metric} on {one.problem}" if one.row else one.metric
    if not one.seeds:
        return f"{where}: {one.reason}"
    effect = Quantity(one.difference, one.low, one.high, signed=True)
    holm = f" after Holm's correction for {one.family}" if one.family > 1 else ""
    text = (
        f"{where}: Δ{' ln' if one.logarithm else ''} {effect} ({one.items} items, {one.seeds} seeds), "
        f"one-sided p = {one.adjusted_p:.2g}{holm}"
    )
    if one.verdict == "inconclusive":
        text += f"; at this scale {one.detectable:.2g} would be found with 80% power"
    return text
