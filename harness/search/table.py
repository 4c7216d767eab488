"""A tabular benchmark: every architecture of a space, trained alone by a recipe, with what became of it.

`suites/reference/tables/NAME.csv` has a row for each architecture and seed; metrics alone read it, never a method.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness.errors import BadInput, nearest

Score = Literal["loss", "accuracy"]
PACKAGE = "suites.reference"


@dataclass(frozen=True)
class Table:
    """Test `loss` and `accuracy` of each architecture (by name) and seed: (architectures, seeds)."""

    name: str
    archs: tuple[str, ...]
    loss: np.ndarray
    accuracy: np.ndarray
    hash: str

    def quality(self, of: Score) -> dict[str, float]:
        """The mean over seeds for each architecture; higher is better, so a loss is negated."""
        values = self.accuracy.mean(1) if of == "accuracy" else -self.loss.mean(1)
        return dict(zip(self.archs, values.tolist(), strict=True))

    def require(self, archs: Iterable[str], space: str) -> None:
        """BadInput for a table of other architectures than those of a space."""
        missing = sorted(set(archs) ^ set(self.archs))
        if missing:
            raise BadInput(f"problem: table {self.name} is not of the space {space}: only one of them has {missing[0]}")


def folder() -> Path:
    return Path(next(iter(importlib.import_module(PACKAGE).__path__))) / "tables"


def find(name: object) -> Path:
    """The file of a table. BadInput for a name that is none."""
    known = sorted(file.stem for file in folder().glob("*.csv"))
    if name not in known:
        raise BadInput(f"problem: unknown table {name!r}; {nearest(str(name), known)}")
    return folder() / f"{name}.csv"


@functools.lru_cache(maxsize=4)
def read_table(name: str) -> Table:
    """The table of that name."""
    file = find(name)
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    archs = tuple(dict.fromkeys(row["arch"] for row in rows))
    seeds = sorted({int(row["seed"]) for row in rows})
    if len(rows) != len(archs) * len(seeds):
        raise BadInput(f"{file}: {len(rows)} rows are not {len(archs)} architectures on {len(seeds)} seeds")
    at = {(row["arch"], int(row["seed"])): row for row in rows}

    def column(key: str) -> np.ndarray:
        return np.array([[float(at[arch, seed][key]) for seed in seeds] for arch in archs])

    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Table(name, archs, column("loss"), column("accuracy"), digest)
