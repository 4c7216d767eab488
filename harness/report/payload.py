"""What a page computes with: tables and records as JSON, every repeated part once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.engine.ledger import Ledger
from harness.engine.record import Record
from harness.report.gather import Section
from harness.tables import Quantity, Row, Table
from harness.tables.model import Value

COSTS = ("wall_seconds", "solve_seconds", "cpu_seconds", "peak_memory_bytes", "peak_device_bytes", "energy_joules")


class Shared:
    """A list of distinct values, and the place of each."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def add(self, value: Any) -> int:
        place = self._places.setdefault(json.dumps(value, sort_keys=True), len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place


def payload(sections: Sequence[Section], ledger: Ledger) -> dict[str, Any]:
    """Everything the page's script reads. A record is a list in the order of `fields`; a cell of a table is a text, or
    [number, interval, word, value, mark, test] with the first two rounded as every table rounds them."""
    shared = {name: Shared() for name in ("environments", "signatures", "sizes", "kinds", "reasons")}
    records = [
        [number, problem, row, int(old), *_record(record, list(section.metrics[problem]), shared)]
        for number, section in enumerate(sections)
        for (problem, row), old, record in _all(section)
    ]
    return {
        "fields": [
            "suite", "problem", "row", "old", "hash", "seed", "status", "created", "version", "environment", "size",
            "metrics", "costs", "kinds", "reason", "traceback",
        ],
        "costs": COSTS,
        "suites": [_suite(section) for section in sections],
        "records": records,
        **{name: one.values for name, one in shared.items()},
        "environments": [ledger.environment(one) for one in shared["environments"].values],
    }  # fmt: skip


def _all(section: Section) -> Iterable[tuple[tuple[int, int], bool, Record]]:
    for key, taken in sorted(section.taken.items()):
        for seed in sorted(taken):
            yield key, False, taken[seed]
        for record in section.older.get(key, ()):
            yield key, True, record


def _record(record: Record, labels: Sequence[str], shared: Mapping[str, Shared]) -> list[Any]:
    size = {key: value for key, value in record.size.items() if key != "layers"}
    return [
        record.hash,
        record.seed,
        record.status,
        round(record.created),
        record.version[:12],
        shared["environments"].add(record.environment),
        shared["sizes"].add(size),
        [_metric(record.metrics.get(label), shared["signatures"]) for label in labels],
        [record.cost.get(name, {}).get("value") for name in COSTS],
        shared["kinds"].add([record.cost.get(name, {}).get("kind", "missing") for name in COSTS]),
        shared["reasons"].add(record.reason),
        record.traceback,
    ]


def _metric(found: Mapping[str, Any] | None, signatures: Shared) -> list[Any] | None:
    """[value, place of its protocol, extra figures]."""
    if found is None:
        return None
    protocol = [found["signature"], found["items"], found["unit"]]
    return [_finite(found["value"]), signatures.add(protocol), found["extra"] or 0]


def _suite(section: Section) -> dict[str, Any]:
    suite = section.suite
    return {
        "name": suite.name,
        "baseline": str(suite.baseline) if suite.baseline else None,
        "seeds": len(section.scope.seeds),
        "commands": [section.command(point) for point in section.scope.points],
        "problems": [_problem(section, at, table) for at, table in enumerate(section.tables)],
    }


def _problem(section: Section, at: int, table: Table) -> dict[str, Any]:
    labels = list(section.metrics[at])
    return {
        "title": table.title,
        "spec": section.scope.problems[at].spec,
        "metrics": [{"label": label, "name": section.metrics[at][label]} for label in labels],
        "columns": [_column(section, at, table, number) for number in range(len(table.columns))],
        "rows": [_row(table, row) for row in table.rows],
        "notes": table.notes,
        "general": table.general,
    }


def _column(section: Section, at: int, table: Table, number: int) -> dict[str, Any]:
    column = table.columns[number]
    labels = list(section.metrics[at])
    return {
        "heading": column.heading,
        "metric": labels.index(column.group) if column.group in labels else None,
        "text": column.text,
    }


def _row(table: Table, row: Row) -> dict[str, Any]:
    return {
        "method": row.method,
        "params": row.params,
        "notes": row.notes,
        "cells": [cell(row.values.get(column.key)) for column in table.columns],
    }


def cell(value: Value) -> Any:
    """A cell as the page's script reads it."""
    if not isinstance(value, Quantity):
        return value
    shown = [value.number, value.interval, value.word, _finite(value.value), value.mark]
    return [*shown, str(value.test)] if value.test else shown


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def embedded(value: Any) -> str:
    """JSON that can stand in a `<script>` element: no text in it can end the element or begin another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
