"""The module of each track, found by name: what the engine knows of a kind of problem."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from harness.registry import Entry


class Track(Protocol):
    """What `harness.<track>.track` provides."""

    def describe(self, spec: dict[str, Any]) -> dict[str, str]:
        """Content hashes of what a problem's specification names (its `model`, its data), without building it.
        Raises BadInput for a field that is unknown, wrong or names something that is not there."""

    def build(self, spec: dict[str, Any], *, seed: int) -> Any:
        """The problem that a method is given; every random draw in it comes from `seed`."""

    def solve(self, entry: Entry, problem: Any, params: dict[str, Any]) -> Any:
        """The method's solution of the problem."""

    def subject(self, problem: Any, solution: Any) -> Any:
        """What the metrics evaluate."""

    def size(self, problem: Any, solution: Any) -> dict[str, float]:
        """The solution's measured size."""


def track_module(name: str) -> Track:
    """The track's module, `harness.<name>.track`."""
    return cast(Track, importlib.import_module(f"harness.{name}.track"))
