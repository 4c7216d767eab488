"""A plot of the report, and what all of them need of a section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure as Drawing

from harness.report.gather import Section
from harness.report.plots.style import MAX_ROWS, Mark
from harness.tables.model import Quantity

Draw = Callable[[float], Drawing]


@dataclass(frozen=True)
class Figure:
    """A plot, drawn at a width in CSS pixels; without `draw` it is absent and the caption says why. `key` names its
    file, `wide` asks for a whole row of the page."""

    key: str
    title: str
    caption: str
    draw: Draw | None = None
    wide: bool = False


def row_marks(section: Section, number: int, problem: int) -> list[Mark]:
    """A mark a row, with the key by which the page finds the row."""
    rows = section.tables[problem].rows
    return [Mark(str(row.values["method"]), f"{number}.{problem}.{at}") for at, row in enumerate(rows)]


def problem_key(section: Section, problem: int, *parts: str) -> str:
    """A name for a plot's file: letters, digits and hyphens."""
    text = "-".join([section.suite.name, section.tables[problem].title, *parts])
    return "-".join("".join(one if one.isalnum() else " " for one in text).split())


def quantities(section: Section, problem: int, key: str) -> dict[int, Quantity]:
    """A column's numbers by row."""
    values = {at: row.values.get(key) for at, row in enumerate(section.tables[problem].rows)}
    return {at: value for at, value in values.items() if isinstance(value, Quantity)}


def most(items: Sequence[Any], size: Callable[[Any], Any], what: str, room: int = MAX_ROWS) -> tuple[list[Any], str]:
    """No more rows than a plot has room for: those of the largest size, in their order; and what to say of it."""
    if len(items) <= room:
        return list(items), ""
    kept = sorted(sorted(range(len(items)), key=lambda at: size(items[at]), reverse=True)[:room])
    return [items[at] for at in kept], f" The {room} of {len(items)} rows with {what}; the table has all."
