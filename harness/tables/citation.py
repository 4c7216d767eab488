"""What a table is cited by: an id that names its records, and the command that makes it again.

An id reads `harness:SUITE:PROBLEM:RECORDS:CODE`. RECORDS is a hash of every record in the table with its per-item
scores, CODE one of the statistics settings and of the source that turns records into a table. Whoever has the records
(a ledger, a published bundle) can recompute the table and compare every printed number.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.engine.plan import canonical, digest
from harness.engine.record import Record
from harness.scores import Scores

ID = re.compile(
    r"harness:(?P<suite>[a-z0-9][a-z0-9-]*):(?P<problem>\d+):(?P<records>[0-9a-f]{16}):(?P<code>[0-9a-f]{8})"
)
"""What a table's id looks like."""
_SOURCES = ("stats/*.py", "scores.py", "engine/pairing.py", "tables/build.py", "tables/control.py",
            "tables/hardware.py", "tables/ranking.py", "tables/rounding.py", "tables/statistics.py")  # fmt: skip
"""The files, below `harness`, on which a table's numbers depend once its records are there."""


@dataclass(frozen=True)
class Citation:
    """A table's id, and the command that computes what is missing of it and prints it."""

    id: str
    command: str


def table_id(suite: str, problem: int, records: str, settings: Mapping[str, Any]) -> str:
    """The id of a suite's table on its problem number `problem`, counted from 1; `records` is a `Tally`'s digest."""
    return f"harness:{suite}:{problem}:{records[:16]}:{digest([settings, source_version()])[:8]}"


class Tally:
    """A hash over a table's records, entered row by row and seed by seed with their per-item scores."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._items: dict[int, tuple[Scores, str]] = {}

    def record(self, record: Record) -> None:
        """Enter everything of a record that a table may show."""
        shown = [record.hash, record.status, record.reason, record.metrics, record.size, record.cost]
        self._hash.update(canonical([*shown, record.environment]).encode())

    def scores(self, label: str, scores: Scores) -> None:
        """Enter the per-item scores of one metric of the record entered last."""
        self._hash.update(f"{label}|{self._item_set(scores)}|".encode())
        self._hash.update(scores.values.astype("<f8").tobytes())

    def _item_set(self, scores: Scores) -> str:
        """Hash of the items. Many records share one list of them, which is hashed once (and kept, so that its place in
        memory stays its own)."""
        from harness.engine.schema import item_set

        known = self._items.get(id(scores.ids))
        if known is None:
            known = self._items[id(scores.ids)] = (scores, item_set(scores)[0])
        return known[1]

    def digest(self) -> str:
        return self._hash.hexdigest()


@functools.cache
def source_version() -> str:
    """Hash of the code that a table's numbers depend on, without comments and docstrings."""
    from harness.registry import without_words

    home = Path(__file__).parents[1]
    files = sorted(path for pattern in _SOURCES for path in home.glob(pattern))
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in files)
    return hashlib.sha256("".join(ast.dump(without_words(tree)) for tree in trees).encode()).hexdigest()
