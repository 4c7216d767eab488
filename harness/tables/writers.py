"""Formats a table is written in. A format is a function from tables to text, registered with `@writer`."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput, nearest
from harness.params import format_call
from harness.tables.model import BEST, TIED, Column, Quantity, Row, Table, Value

Render = Callable[[Sequence[Table]], str]
EMPTY = "-"
ROLES = {"control": " (null control)"}
"""What stands behind the name of a row that is there for something else than to be compared."""


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
        write_whole(paths[-1], form.render(tables))
    return paths


def write_whole(path: Path, text: str) -> None:
    """Write a file, or leave what was there."""
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


def name(table: Table, row: Row) -> str:
    """What a row is called."""
    return f"{row.values[table.columns[0].key]}{ROLES.get(row.role, '')}"


def label(table: Table, row: Row) -> str:
    """The first cell of a row: its name, and the numbers of its notes."""
    return name(table, row) + "".join(f" [{number}]" for number in row.notes)


def marked(value: Quantity, best: str, tied: str = "{}†") -> str:
    """The number in the form of its mark."""
    return {BEST: best, TIED: tied}.get(value.mark, "{}").format(value.number)


def citation_line(table: Table, quote: str = "") -> str:
    """How to cite a table and to make it again, in a sentence; empty for one without an id."""
    if table.citation is None:
        return ""
    return f"Table {quote}{table.citation.id}{quote}, made by {quote}{table.citation.command}{quote}"


def problem_line(table: Table) -> str:
    """The problem's specification in a line."""
    return ", ".join(f"{key}: {_plain(value)}" for key, value in table.problem.items())


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
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
        lines += [f"{citation_line(table, '`')}", ""] if table.citation else []
    return "\n".join(lines)


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _cell(value: Value) -> str:
    if not isinstance(value, Quantity):
        return EMPTY if value is None else value
    return " ".join(part for part in (marked(value, "**{}**"), value.interval, value.word) if part)


@writer("csv", "csv")
def comma_separated(tables: Sequence[Table]) -> str:
    """One header for all tables, unrounded numbers, interval ends and words in columns of their own."""
    columns: dict[str, Column] = {column.key: column for table in tables for column in table.columns[1:]}
    parts = {key: _parts([row.values.get(key) for table in tables for row in table.rows]) for key in columns}
    names = [f"{key}{part}" for key in columns for part in parts[key]]
    out = io.StringIO()
    fields = ["suite", "problem", "method", "parameters", *names, "notes", "table", "command"]
    sheet = csv.DictWriter(out, fields, lineterminator="\n")
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
                    "table": table.citation.id if table.citation else "",
                    "command": table.citation.command if table.citation else "",
                }
            )
    return out.getvalue()


_WORDS = {"_verdict": "word", "_mark": "mark"}
_TESTS = {"_p": "p", "_adjusted_p": "adjusted_p", "_effect": "effect"}


def _parts(values: Sequence[Value]) -> list[str]:
    """The endings of the sheet's columns that hold a table's column."""
    numbers = [value for value in values if isinstance(value, Quantity)]
    intervals = ["_low", "_high"] if any(number.low is not None for number in numbers) else []
    words = [part for part, field in _WORDS.items() if any(getattr(number, field) for number in numbers)]
    return ["", *intervals, *words, *(_TESTS if any(number.test for number in numbers) else ())]


def _part(value: Value, part: str) -> str:
    if not isinstance(value, Quantity):
        return value or "" if part == "" else ""
    if part in _WORDS:
        return getattr(value, _WORDS[part])
    if part in _TESTS:
        number = getattr(value.test, _TESTS[part]) if value.test else None
    else:
        number = {"": value.value, "_low": value.low, "_high": value.high}[part]
    return "" if number is None or not math.isfinite(number) else repr(number)


@writer("json", "json")
def as_json(tables: Sequence[Table]) -> str:
    """Everything the tables hold, unrounded."""
    return json.dumps({"format": "harness-tables", "version": 1, "tables": [_table(one) for one in tables]}, indent=1)


def _table(table: Table) -> dict[str, Any]:
    keys = [column.key for column in table.columns]
    cited = {"id": table.citation.id, "command": table.citation.command} if table.citation else {}
    return {
        **cited,
        "suite": table.suite,
        "title": table.title,
        "caption": table.caption,
        "problem": table.problem,
        "columns": [
            {"key": one.key, "title": one.title, "unit": one.unit, "group": one.group} for one in table.columns
        ],
        "rows": [
            {
                "method": row.method,
                "params": row.params,
                "role": row.role,
                "values": {key: _value(row.values.get(key)) for key in keys},
                "notes": list(row.notes),
            }
            for row in table.rows
        ],
        "notes": table.notes,
        "protocol": table.protocol,
    }


def _value(value: Value) -> Any:
    if not isinstance(value, Quantity):
        return value
    numbers = {"value": value.value, "low": value.low, "high": value.high}
    found: dict[str, Any] = {
        key: one if math.isfinite(one) else None for key, one in numbers.items() if one is not None
    }
    words = {"verdict": value.word, "mark": value.mark}
    test = asdict(value.test) if value.test else {}
    test = {key: None if isinstance(one, float) and not math.isfinite(one) else one for key, one in test.items()}
    return {**found, **test, **{key: word for key, word in words.items() if word}}
