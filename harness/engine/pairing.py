"""Which row of a table is compared with which: the baseline's row that agrees with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.params import Expression

Row = tuple[str, Mapping[str, Any]]
"""A method and its complete parameters."""


def pair_with_baseline(rows: Sequence[Row], baseline: Expression | None) -> list[int | None]:
    """For every row of one problem, the position of the baseline row it is compared with, or None.

    The baseline's rows are those that the expression matches. A row is paired with the one that agrees with it in
    every parameter both methods have (bits, group size), except those that the expression fixes; where none agrees,
    with the baseline's row if there is only one. Two that agree would make the choice arbitrary: then none is taken.
    """
    if baseline is None:
        return [None] * len(rows)
    fixed = baseline.values
    known = [at for at, row in enumerate(rows) if matches(row, baseline)]
    return [None if at in known else _partner(rows, at, known, fixed) for at in range(len(rows))]


def matches(row: Row, baseline: Expression) -> bool:
    """Whether a row is of the method that an expression names, with one of the values it gives each parameter."""
    method, params = row
    if method != baseline.name.replace("-", "_"):
        return False
    wanted = {key: value if isinstance(value, list) else [value] for key, value in baseline.values.items()}
    return all(params.get(key) in values for key, values in wanted.items())


def _partner(rows: Sequence[Row], at: int, known: Sequence[int], fixed: Mapping[str, Any]) -> int | None:
    params = rows[at][1]
    agreeing = [
        other
        for other in known
        if all(params[key] == value for key, value in rows[other][1].items() if key in params and key not in fixed)
    ]
    choice = agreeing or known
    return choice[0] if len(choice) == 1 else None
