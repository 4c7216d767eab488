"""Formats a table is written in. A format is a function from tables to text, registered with `@writer`."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput, nearest
from harness.params import format_call
from harness.tables.model import Column, Quantity, Row, Table, Value

Render = Callable[[Sequence[Table]], str]
EMPTY = "-"


@dataclass(frozen=True)
class Format:
    """A way to write tables: the ending of its files, and the function that makes their text."""

    extension: str
    render: Render


FORMATS: dict[str, Format] = {}


def writer(name: str, extension: str) -> Callable[[Render], Render]:
    """Register a function as the format `name`."""

    def register(function: Render) -> Render:
        FORMATS[name] = Format(extension, function)
        return function

    return register


def render(tables: Sequence[Table], name: str) -> str:
    """The tables as text in one of `FORMATS`."""
    if name not in FORMATS:
        raise BadInput(f"unknown format {name!r}; {nearest(name, FORMATS)}")
    return FORMATS[name].render(tables)


def write_files(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write `table.<extension>` in every format, each file whole or not at all. Returns the paths."""
    paths = []
    for form in FORMATS.values():
        paths.append(folder / f"table.{form.extension}")
        _write(paths[-1], form.render(tables))
    return paths


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error


def label(table: Table, row: Row) -> str:
    """The first cell of a row: the method, and the numbers of its notes."""
    marks = "".join(f" [{number}]" for number in row.notes)
    return f"{row.values[table.columns[0].key]}{marks}"


def problem_line(table: Table) -> str:
    """The problem's specification in a line."""
    return ", ".join(f"{key}: {_plain(value)}" for key, value in table.problem.items())


def _plain(value: Any) -> str:
    return format_call("", value) if isinstance(value, dict) else str(value)


@writer("markdown", "md")
def markdown(tables: Sequence[Table]) -> str:
    """One section a table, with its notes below."""
    lines: list[str] = []
    for number, table in enumerate(tables):
        if number == 0:
            lines += [f"# {table.suite}", ""]
        lines += [f"## {table.title}", "", f"{problem_line(table)}", ""]
        lines.append(_pipes([column.heading for column in table.columns]))
        lines.append(_pipes([":--" if column.text else "--:" for column in table.columns]))
        for row in table.rows:
            cells = [_cell(row.values.get(column.key)) for column in table.columns[1:]]
            lines.append(_pipes([label(table, row), *cells]))
        lines += ["", *(f"{at}. {note}" for at, note in enumerate(table.notes, 1)), ""]
    return "\n".join(lines)


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _cell(value: Value) -> str:
    return EMPTY if value is None else str(value)


@writer("csv", "csv")
def comma_separated(tables: Sequence[Table]) -> str:
    """One header for all tables, unrounded numbers, interval ends and words in columns of their own."""
    columns: dict[str, Column] = {column.key: column for table in tables for column in table.columns[1:]}
    parts = {key: _parts([row.values.get(key) for table in tables for row in table.rows]) for key in columns}
    names = [f"{key}{part}" for key in columns for part in parts[key]]
    out = io.StringIO()
    sheet = csv.DictWriter(out, ["suite", "problem", "method", "parameters", *names, "notes"], lineterminator="\n")
    sheet.writeheader()
    for table in tables:
        for row in table.rows:
            cells = {f"{key}{part}": _part(row.values.get(key), part) for key in columns for part in parts[key]}
            sheet.writerow(
                {
                    "suite": table.suite,
                    "problem": table.title,
                    "method": row.method,
                    "parameters": json.dumps(row.params, sort_keys=True),
                    **cells,
                    "notes": " ".join(table.notes[number - 1] for number in row.notes),
                }
            )
    return out.getvalue()


def _parts(values: Sequence[Value]) -> list[str]:
    """The endings of the sheet's columns that hold a table's column."""
    numbers = [value for value in values if isinstance(value, Quantity)]
    intervals = ["_low", "_high"] if any(number.low is not None for number in numbers) else []
    return ["", *intervals, *(["_verdict"] if any(number.word for number in numbers) else [])]


def _part(value: Value, part: str) -> str:
    if not isinstance(value, Quantity):
        return value or "" if part == "" else ""
    if part == "_verdict":
        return value.word
    number = {"": value.value, "_low": value.low, "_high": value.high}[part]
    return "" if number is None or not math.isfinite(number) else repr(number)


@writer("json", "json")
def as_json(tables: Sequence[Table]) -> str:
    """Everything the tables hold, unrounded."""
    return json.dumps({"format": "harness-tables", "version": 1, "tables": [_table(one) for one in tables]}, indent=1)


def _table(table: Table) -> dict[str, Any]:
    keys = [column.key for column in table.columns]
    return {
        "suite": table.suite,
        "title": table.title,
        "problem": table.problem,
        "columns": [
            {"key": one.key, "title": one.title, "unit": one.unit, "group": one.group} for one in table.columns
        ],
        "rows": [
            {
                "method": row.method,
                "params": row.params,
                "values": {key: _value(row.values.get(key)) for key in keys},
                "notes": list(row.notes),
            }
            for row in table.rows
        ],
        "notes": table.notes,
    }


def _value(value: Value) -> Any:
    if not isinstance(value, Quantity):
        return value
    numbers = {"value": value.value, "low": value.low, "high": value.high}
    found: dict[str, Any] = {
        key: one if math.isfinite(one) else None for key, one in numbers.items() if one is not None
    }
    return {**found, "verdict": value.word} if value.word else found
