"""Tables of features and a target: numbers as they are, categories one-hot, what is missing at the column's median."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from harness import data
from harness.errors import BadInput, nearest

TARGETS = {
    "california-housing": "median_house_value",
    "codesignal/wine-quality": "quality",
    "diabetes": "progression",
    "german-credit": "credit_amount",
    "wine-quality": "quality",
}
"""The column that is predicted, unless it is named."""


@dataclass(frozen=True)
class Table:
    """`features` (n, columns) and `target` (n,), float64, and a stable id for each row."""

    features: np.ndarray
    target: np.ndarray
    columns: tuple[str, ...]
    ids: tuple[str, ...]
    signature: str


def target_of(name: str, target: str | None) -> str:
    """The column to predict. BadInput for a data set that has no usual one."""
    found = target or TARGETS.get(name.partition(":")[0])
    if found is None:
        raise BadInput(f"problem: data set {name} has no usual target; give `target`, the name of a column of numbers")
    return found


@functools.lru_cache(maxsize=8)
def read(name: str, target: str | None = None) -> Table:
    """A data set as a table. Raises BadInput for a target that is no column of numbers."""
    found = data.load(name)
    wanted = target_of(name, target)
    if wanted not in found.columns:
        raise BadInput(f"problem: data set {name} has no column {wanted!r}; {nearest(wanted, found.columns)}")
    parts, names = [], []
    for column in found.columns:
        values = found.column(column)
        if column == wanted or column == found.source.item_id:
            continue
        for label, numbers in _numbers(column, values):
            parts.append(numbers)
            names.append(label)
    y = _as_numbers(found.column(wanted))
    if y is None or not np.isfinite(y).all():
        raise BadInput(f"problem: column {wanted!r} of data set {name} is not made of numbers; name another target")
    signature = f"{found.source.title}@{found.hash[:12]}|target:{wanted}"
    return Table(np.stack(parts, axis=1), y, tuple(names), tuple(found.ids()), signature)


def _numbers(name: str, values: list) -> list[tuple[str, np.ndarray]]:
    """A column as one or more columns of numbers."""
    numbers = _as_numbers(values)
    if numbers is not None:
        middle = np.nanmedian(numbers)
        return [(name, np.where(np.isnan(numbers), middle, numbers))]
    words = np.array([str(value) for value in values])
    return [(f"{name}={word}", (words == word).astype(float)) for word in sorted(set(words))]


def _as_numbers(values: list) -> np.ndarray | None:
    if any(isinstance(value, str) for value in values):
        return None
    return np.array([np.nan if value is None else float(value) for value in values])
