"""The module of each track, found by name: what the engine knows of a kind of problem."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from harness.registry import Entry


class Track(Protocol):
    """What `harness.tracks.<name>` provides."""

    def describe(self, spec: dict[str, Any]) -> dict[str, str]:
        """Content hashes of what a problem's specification names (its `model`, its data), without building it.
        Raises BadInput for a field that is unknown, wrong or names something that is not there."""

    def build(self, spec: dict[str, Any], *, seed: int) -> Any:
        """The problem that a method is given; every random draw in it comes from `seed`."""

    def solve(self, entry: Entry, problem: Any, params: dict[str, Any]) -> Any:
        """The method's solution of the problem."""

    def subject(self, problem: Any, solution: Any) -> Any:
        """What the metrics evaluate."""

    def size(self, problem: Any, solution: Any) -> dict[str, Any]:
        """The solution's measured size."""

    def develop(self, problem: Any, solution: Any) -> float:
        """How bad the solution is on the problem's development split, which tuning chooses by. A track without it
        cannot be tuned."""

    # Optional: `ALONE = True` for trials that run one at a time; `preamble(specs)`, lines on the machine before a run;
    # `remarks(log)`, notes on a table and on a row from a record's log.

    def checks(self) -> tuple[Callable[[Entry], str], ...]:
        """The contract of the track's methods, see `harness.check`."""


def track_module(name: str) -> Track:
    """The track's module, `harness.tracks.<name>`."""
    return cast(Track, importlib.import_module(f"harness.tracks.{name}"))
