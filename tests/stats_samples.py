"""Score sets for the tests of the statistics."""

from __future__ import annotations

import numpy as np

from harness.scores import Scores
from harness.stats import ScoreSet


def scores(values, **more) -> Scores:
    """Scores of items named by their position."""
    values = np.asarray(values, dtype=float)
    return Scores([f"item{i:05d}" for i in range(len(values))], values, "metric|data|v:1", **more)


def score_set(rows, **more) -> ScoreSet:
    """(seeds, items) or (items,) values as one set."""
    return ScoreSet.stack([scores(row, **more) for row in np.atleast_2d(rows)], range(len(np.atleast_2d(rows))))
