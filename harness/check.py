"""The contract of a method, executable: run it on small synthetic problems and say where it is broken.

The checks of a track are what `checks()` of its module gives. A check is a function of the method's `Entry` that
returns a line on what it saw, and raises `Broken` (or whatever the method raised) where the contract does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.engine.tracks import track_module
from harness.errors import BadInput
from harness.registry import Entry, entries, get, load_file

Check = Callable[[Entry], str]


class Broken(Exception):
    """The method does not keep the contract; the message says how."""


@dataclass(frozen=True)
class Row:
    """What one check found about one method."""

    method: str
    check: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Report:
    """All that was checked about a method, or about the methods of a file."""

    target: str
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)


def check(target: str) -> Report:
    """Run the contract's checks on a registered method, or on every method that a Python file registers.

    Raises BadInput for an unknown name, and for a file that is missing, cannot be imported or registers no method.
    """
    return Report(target, tuple(_run(test, entry) for entry in _methods(target) for test in checks_of(entry.track)))


def checks_of(track: str) -> tuple[Check, ...]:
    """The checks of a track, in the order in which they run."""
    return track_module(track).checks()


def _methods(target: str) -> list[Entry]:
    path = Path(target)
    if path.suffix != ".py" and not path.is_file():
        return [get(target)]
    load_file(path)
    found = [entry for entry in entries() if entry.file.resolve() == path.resolve()]
    if not found:
        raise BadInput(f"{path} registers no method; decorate a function with @method(track=...)")
    return found


def _run(test: Check, entry: Entry) -> Row:
    try:
        ok, detail = True, test(entry)
    except Broken as broken:
        ok, detail = False, str(broken)
    except Exception as error:
        ok, detail = False, f"raised {type(error).__name__}: {error}"
    return Row(entry.name, test.__name__.replace("_", " "), ok, " ".join(detail.split()))
