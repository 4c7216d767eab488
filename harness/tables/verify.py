"""Whether every number of a printed table still holds: recomputed from the records that its id names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.engine.ledger import Ledger
from harness.engine.suite import Suite, load_suite
from harness.errors import BadInput
from harness.tables.build import Scope, tabulate
from harness.tables.citation import ID
from harness.tables.model import Table
from harness.tables.printed import Printed, format_of, parse, read_printed
from harness.tables.writers import render

TOLERANCE = 1e-5
"""Unrounded ends of intervals that differ by less than this share of their size hold: another machine sums in another
order. They are counted, not hidden."""
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class Change:
    """A printed cell that does not hold; `row` is `note` for a sentence."""

    row: str
    column: str
    printed: str
    recomputed: str


@dataclass(frozen=True)
class Verified:
    """What became of one printed table: how many cells were checked, which do not hold, how many unrounded numbers
    differ in their last places only, and how many sentences are not the harness's own."""

    id: str
    cells: int
    changes: list[Change] = field(default_factory=list)
    last_places: int = 0
    foreign: int = 0
    other_code: bool = False

    @property
    def holds(self) -> bool:
        return not self.changes


def verify_file(path: Path, ledger: Ledger, suite: Suite | None = None) -> list[Verified]:
    """Recompute every table of a file. Raises BadInput where the ledger does not have a table's records."""
    known: dict[str, list[Table]] = {}
    return [_verify(printed, path, _recompute(printed, path, ledger, suite, known)) for printed in read_printed(path)]


def _recompute(
    printed: Printed, path: Path, ledger: Ledger, suite: Suite | None, known: dict[str, list[Table]]
) -> Table:
    """The table that the id names, from the ledger; `known` keeps a suite's tables by what they were asked for."""
    wanted = _parts(printed.id, path)
    name, options = _scope(printed.command, wanted["suite"])
    loaded = suite or load_suite(name)
    if loaded.name != wanted["suite"]:
        raise BadInput(f"{path}: table {printed.id} is of suite {wanted['suite']}, not of {loaded.name}")
    asked = f"{loaded.path} {options}"
    if asked not in known:
        known[asked] = tabulate(Scope.of(loaded, **options), ledger)
    tables = known[asked]
    at = int(wanted["problem"])
    if not 1 <= at <= len(tables):
        raise BadInput(f"{path}: unknown table {printed.id}: suite {loaded.name} has {len(tables)} problems")
    table = tables[at - 1]
    assert table.citation is not None
    if _parts(table.citation.id, path)["records"] != wanted["records"]:
        raise BadInput(
            f"{path}: unknown table {printed.id}: ledger {ledger.name} has other records for it "
            f"({table.citation.id}); import the bundle it was published with"
        )
    return table


def _parts(identity: str, path: Path) -> dict[str, str]:
    found = ID.fullmatch(identity)
    if found is None:
        raise BadInput(f"{path}: {identity!r} is no table's id; it reads harness:SUITE:PROBLEM:RECORDS:CODE")
    return found.groupdict()


def _scope(command: str, suite: str) -> tuple[str, dict[str, Any]]:
    """The suite and the options of the command beside a table; the suite's own protocol where there is none."""
    words = shlex.split(command)[2:] if command else [suite]
    given = {
        name.removeprefix("--"): value
        for name, value in zip(words[1::2], words[2::2], strict=False)
        if name in _OPTIONS
    }
    return words[0], {name: _OPTIONS[f"--{name}"](value) for name, value in given.items()}


_OPTIONS: dict[str, Callable[[str], Any]] = {"--seeds": int, "--limit": int, "--model": str, "--correction": str}


def _verify(printed: Printed, path: Path, table: Table) -> Verified:
    (again,) = parse(render([table], format_of(path)), path)
    changes, close = [], 0
    for (row, column), text in printed.cells.items():
        expected = again.cells.get((row, column))
        if expected is None and not text:
            continue  # a column that only another table of the same sheet has
        if expected is None:
            changes.append(Change(row, column, text, "no such row or column"))
        elif text != expected:
            if _nearly(text, expected):
                close += 1
            else:
                changes.append(Change(row, column, text, expected))
    assert table.citation is not None
    # A caption holds the id, whose last part is of the statistics code: that it is another is said on its own.
    notes = [text.replace(table.citation.id, printed.id) for text in again.notes]
    sentences, foreign = _sentences(printed.notes, notes)
    other = ID.fullmatch(printed.id)["code"] != ID.fullmatch(table.citation.id)["code"]  # type: ignore[index]
    return Verified(printed.id, len(printed.cells), [*changes, *sentences], close, foreign, other)


def _nearly(one: str, other: str) -> bool:
    """Whether two unrounded numbers differ no more than machines do."""
    try:
        a, b = float(one), float(other)
    except ValueError:
        return False
    written = min(len(re.sub(r"\D", "", text.partition("e")[0]).lstrip("0")) for text in (one, other))
    return written > 9 and abs(a - b) <= TOLERANCE * abs(b)


def _sentences(printed: list[str], recomputed: list[str]) -> tuple[list[Change], int]:
    """(sentences in which only numbers differ from a recomputed one, how many are nowhere in the recomputed)."""
    known = {_skeleton(text): text for text in recomputed}
    exact = set(recomputed)
    others = [text for text in printed if text and text not in exact]
    changed = [
        Change("note", one.partition(":")[0][:40], one, known[_skeleton(one)])
        for one in others
        if _skeleton(one) in known
    ]
    return changed, len(others) - len(changed)


def _skeleton(text: str) -> str:
    return _NUMBER.sub("#", ID.sub("ID", text))


def explain(found: Verified) -> Iterator[str]:
    """The result in lines."""
    if found.holds:
        yield f"{found.id}: every printed number holds ({found.cells} cells recomputed)"
    else:
        yield f"{found.id}: {len(found.changes)} of {found.cells} cells do not hold"
    for change in found.changes:
        where = f"row {change.row}, column {change.column}" if change.row != "note" else f"note {change.column!r}"
        yield f"  {where}: printed {change.printed or '(nothing)'}, recomputed {change.recomputed or '(nothing)'}"
    if found.last_places:
        yield f"  {found.last_places} unrounded numbers differ in their last places, as another machine's sums do"
    if found.foreign:
        yield f"  {found.foreign} sentences beside the table are not the harness's own and were not checked"
    if found.other_code:
        yield "  the table was made with other statistics code or settings than these (last part of its id)"
