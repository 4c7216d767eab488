"""Plots of what methods tell of their work: errors by layer, curves of a training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from harness.report.figure import Figure, most, problem_key
from harness.report.gather import Section
from harness.report.plots.layers import layer_map
from harness.report.plots.lines import Line, lines
from harness.report.plots.style import Mark

CURVE, PASSES, TUNING = "curve", "passes", "tuning"
"""Entries of a log that are of no layer."""
ERROR = "weight_error"
LABELS = {ERROR: "squared error of the weight, relative to the weight"}
"""What the figures that a method notes of each layer are; others go by their own name."""
LINES = 8
"""More lines than this cannot be told apart in one plot."""

Noted = Mapping[str, Mapping[str, float | None]]
"""Figures by layer, then by name."""


def layer_figure(section: Section, problem: int, marks: Sequence[Mark]) -> Figure | None:
    """The figure that most rows noted of two or more layers, the mean over seeds."""
    noted = [[one for one in map(layers_of, _logs(section, problem, at)) if one] for at in range(len(marks))]
    counts = Counter(figure for row in noted for figure in dict.fromkeys(_figures(row)))
    if not counts:
        return None
    chosen = max(counts, key=lambda figure: (counts[figure], figure == ERROR))
    layers = sorted({name for row in noted for one in row for name in one if chosen in one[name]}, key=_natural)
    if len(layers) < 2:
        return None
    rows = [(at, _mean_by_layer(row, chosen, layers)) for at, row in enumerate(noted) if chosen in _figures(row)]
    left = len(marks) - len(rows)
    rows, dropped = most(rows, lambda row: float(np.nanmax(row[1], initial=0)), "the largest errors")
    caption = "The mean over seeds of what a method noted of each layer, sorted by name."
    caption += f" {left} {'row' if left == 1 else 'rows'} without such a note." if left else ""
    label = LABELS.get(chosen, chosen.replace("_", " "))
    errors = np.array([row for _, row in rows])
    draw = partial(layer_map, [marks[at] for at, _ in rows], layers, errors, label=label)
    key = problem_key(section, problem, "layers")
    return Figure(key, "Error of every layer", caption + dropped, draw, wide=True)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 10 after layer 9: a ledger does not keep the order of a log."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def layers_of(log: Mapping[str, Any]) -> Noted:
    """The entries of a record's log that are figures of a layer."""
    others = (CURVE, PASSES, TUNING)
    return {
        name: entry
        for name, entry in log.items()
        if name not in others and isinstance(entry, dict) and entry and all(map(_is_figure, entry.values()))
    }


def curve_figure(section: Section, problem: int, marks: Sequence[Mark]) -> Figure | None:
    """The loss on the development split over a training's steps."""
    found = []
    for at, mark in enumerate(marks):
        curves = [log[CURVE] for log in _logs(section, problem, at) if log.get(CURVE)]
        line = _curve(mark, curves)
        if line is not None:
            found.append(line)
    if not found:
        return None
    higher = sorted(range(len(found)), key=lambda at: found[at].values[-1])[:LINES]
    kept = [found[at] for at in sorted(higher)]
    caption = "Loss on the development split: the mean over seeds, the band from the smallest seed to the largest."
    if len(kept) < len(found):
        caption += f" The {LINES} of {len(found)} rows that ended lowest."
    key = problem_key(section, problem, "curves")
    return Figure(
        key, "Training curves", caption, partial(lines, [("development loss", kept)], x_label="step"), wide=True
    )


def _curve(mark: Mark, curves: Sequence[Sequence[Mapping[str, Any]]]) -> Line | None:
    """The mean over seeds at every step at which all of them were evaluated."""
    seeds = [{row["step"]: row["dev_loss"] for row in curve if row.get("dev_loss") is not None} for curve in curves]
    steps = sorted(set(seeds[0]).intersection(*seeds[1:])) if seeds else []
    if len(steps) < 2:
        return None
    values = np.array([[seed[step] for step in steps] for seed in seeds])
    return Line(mark, tuple(steps), *(tuple(map(float, one)) for one in (values.mean(0), values.min(0), values.max(0))))


def _logs(section: Section, problem: int, row: int) -> list[Mapping[str, Any]]:
    return [record.log for record in section.records(problem, row) if record.log]


def _figures(row: Sequence[Noted]) -> list[str]:
    """Names of the figures of a row's layers, each once."""
    return list(dict.fromkeys(figure for one in row for entry in one.values() for figure in entry))


def _is_figure(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _mean_by_layer(row: Sequence[Noted], figure: str, layers: Sequence[str]) -> np.ndarray:
    """(layers,), NaN where no seed noted the figure."""
    found = [[one.get(name, {}).get(figure) for one in row] for name in layers]
    values = [[value for value in some if value is not None] for some in found]
    return np.array([np.mean(some) if some else np.nan for some in values])
