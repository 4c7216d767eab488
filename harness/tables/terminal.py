"""Tables on a terminal: intervals below their numbers, cut by metric where the terminal is too narrow."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from harness.tables.model import BEST, BITS, Column, Quantity, Row, Table
from harness.tables.writers import EMPTY, citation_line, label, marked, problem_line

_COLOURS = {"better": "green", "worse": "red", "equivalent": "cyan"}


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Print every table with its notes."""
    for table in tables:
        console.print(Text(f"\n{table.suite}: {table.title}", style="bold"))
        console.print(Text(problem_line(table), style="dim"))
        for part in _parts(table, console):
            console.print(_grid(table, part))
        for number, note in enumerate(table.notes, 1):
            console.print(Text(f"[{number}] {note}", style="dim"), soft_wrap=not console.is_terminal)
        if table.citation:
            console.print(Text(citation_line(table), style="dim"), soft_wrap=not console.is_terminal)


def _parts(table: Table, console: Console) -> list[list[Column]]:
    """All columns at once if they fit; else those of each metric beside the method and its bits, then the rest."""
    if _width(table, console) <= console.width:
        return [table.columns]
    method, rest = table.columns[0], table.columns[1:]
    size = [column for column in rest if column.key == BITS]
    others = [column for column in rest if not column.group and column not in size]
    groups = dict.fromkeys(column.group for column in rest if column.group)
    return [*([method, *size, *(one for one in rest if one.group == group)] for group in groups), [method, *others]]


def _width(table: Table, console: Console) -> int:
    wide = console.options.update(width=10_000, max_width=10_000)
    return Measurement.get(console, wide, _grid(table, table.columns)).maximum


def _grid(table: Table, columns: Sequence[Column]) -> Grid:
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        first = column is table.columns[0]
        heading = column.heading if column.group else column.heading.replace(" ", "\n")
        grid.add_column(heading, justify="left" if first else "right", overflow="fold", no_wrap=not first)
    for row in table.rows:
        grid.add_row(*(_cell(table, row, column) for column in columns))
    return grid


def _cell(table: Table, row: Row, column: Column) -> Text:
    if column is table.columns[0]:
        return Text(label(table, row))
    value = row.values.get(column.key)
    if not isinstance(value, Quantity):
        return Text(EMPTY if value is None else value, style="dim" if value is None else "")
    text = Text(marked(value, "{}*"), style="bold" if value.mark == BEST else "")
    if value.word:
        text.append(f" {value.word}", _COLOURS.get(value.word, "yellow"))
    if value.interval:
        text.append(f"\n{value.interval}", "dim")
    return text
