"""`harness list`: what there is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from harness.cli.common import emit, json_option, ledger_option

if TYPE_CHECKING:
    from harness.engine.suite import Suite

Fields = dict[str, Any]
PAGE = 500
"""Rows whose columns are aligned together: a list of any length takes no more memory than a page."""


@click.command("list", short_help="List methods, suites, models, datasets, metrics or trials.")
@click.argument("kind", type=click.Choice(["methods", "suites", "models", "datasets", "metrics", "trials"]))
@click.option("--suite", metavar="SUITE", help="Only what this suite uses; of trials, its own.")
@click.option("--track", metavar="TRACK", help="Of methods and suites, only those of this track.")
@click.option("--status", metavar="STATUS", help="Only trials that ended so: ok, failed, timeout or memory.")
@ledger_option
@json_option
def list_(
    kind: str, suite: str | None, track: str | None, status: str | None, ledger: str | None, as_json: bool
) -> None:
    """List methods (by track), suites, models, datasets, metrics or trials, one a line."""
    from harness.engine.suite import load_suite

    chosen = load_suite(suite) if suite else None
    rows = _trials(chosen, status, ledger) if kind == "trials" else _of_track(_rows(kind, chosen), kind, track)
    if as_json:
        for row in rows:
            emit(row)
    else:
        _print(rows)


def _of_track(rows: list[Fields], kind: str, track: str | None) -> list[Fields]:
    """The rows of one track. Raises BadInput for a track that there is not, or a kind of thing that has none."""
    from harness.errors import BadInput, nearest
    from harness.registry import TRACKS

    if track is None:
        return rows
    if kind not in ("methods", "suites"):
        raise BadInput(f"--track goes with methods and suites; {kind} belong to no track")
    if track not in TRACKS:
        raise BadInput(f"--track {track!r} is not accepted; {nearest(track, TRACKS)}")
    return [row for row in rows if row["track"] == track]


def _print(rows: Iterable[Fields]) -> None:
    """Columns aligned page by page; long fields stand last and are not cut."""
    rows = iter(rows)
    while page := list(islice(rows, PAGE)):
        cells = [[_text(value) for value in row.values()] for row in page]
        widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
        for row in cells:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return "-" if value is None else " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _rows(kind: str, suite: Suite | None) -> list[Fields]:
    if kind == "suites":
        return _suites(suite)
    rows = {"methods": _methods, "metrics": _metrics, "models": _models, "datasets": _datasets}[kind]()
    if suite is None:
        return rows
    used = _used(kind, suite)
    tracks = (suite.track,) if kind == "methods" else (None, "")
    return [r for r in rows if r["name"].replace("-", "_") in used and r.get("track") in tracks]


def _used(kind: str, suite: Suite) -> set[str]:
    """Names that a suite uses, with underscores."""
    problems = suite.problems()
    if kind == "methods":
        found = [call.name for call in suite.fields.methods]
    elif kind == "metrics":
        found = [call.name for problem in problems for call in problem.metrics]
    elif kind == "models":
        found = [problem.spec["model"] for problem in problems if "model" in problem.spec]
    else:
        found = [name for problem in problems for name in _data_names(problem.spec)]
        found += [str(value) for problem in problems for call in problem.metrics for value in call.values.values()]
        found = [name.partition(":")[0] for name in found]
    return {name.replace("-", "_") for name in found}


def _data_names(spec: Fields) -> Iterator[str]:
    """Values of every field `dataset`, at any depth."""
    for key, value in spec.items():
        if isinstance(value, dict):
            yield from _data_names(value)
        elif key == "dataset":
            yield str(value)


def _methods() -> list[Fields]:
    from harness.registry import TRACKS, entries

    found = sorted(entries(), key=lambda entry: (TRACKS.index(entry.track), entry.name))
    return [{"name": e.name, "track": e.track, "paper": e.paper, "summary": e.summary} for e in found]


def _metrics() -> list[Fields]:
    from harness.registry import entries

    return [{"name": entry.name, "summary": entry.summary} for entry in entries("metric")]


def _suites(only: Suite | None) -> list[Fields]:
    from harness.engine.suite import load_suite, names

    suites = [only] if only else [load_suite(name) for name in names()]
    return [{"name": s.name, "track": s.track, "scale": s.fields.scale, "title": s.title} for s in suites]


def _models() -> list[Fields]:
    from harness.models import describe, names

    described = [describe(name) for name in names()]
    return [{"name": one["name"], "kind": one["kind"], "where": _place(one)} for one in described]


def _place(model: Fields) -> str:
    """Where a model's files come from, in a word."""
    if "path" in model:
        return f"suites/{model['path']}"
    return f"$HARNESS_DATA/{model['mirror']}" if "mirror" in model else str(model.get("id", model.get("package")))


def _datasets() -> list[Fields]:
    from harness.data import describe, names

    described = [describe(name) for name in names()]
    return [
        {"name": one["name"], "splits": one["splits"], "id": one.get("id", "(generated)"), "config": one.get("config")}
        for one in described
    ]


def _trials(suite: Suite | None, status: str | None, ledger: str | None) -> Iterator[Fields]:
    from contextlib import closing

    from harness.engine.ledger import open_ledger
    from harness.params import format_call

    with closing(open_ledger(ledger, write=False)) as store:
        for record in store.records(suite=suite.name if suite else None, status=status, brief=True):
            yield {
                "trial": record.hash,
                "status": record.status,
                "seconds": record.cost.get("wall_seconds", {}).get("value"),
                "model": record.model,
                "seed": record.seed,
                "method": format_call(record.method, record.given),
                "reason": record.reason or None,
            }
