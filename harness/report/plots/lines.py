"""Figures of rows over steps of training, or over versions of the code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from harness.report.plots import style
from harness.report.plots.style import COLOURS, Looks, Mark

PANEL = 150.0


@dataclass(frozen=True)
class Line:
    """A row's figure at places `at` (steps, or the numbers of versions); `low` and `high` are the extreme seeds."""

    mark: Mark
    at: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def lines(
    panels: Sequence[tuple[str, Sequence[Line]]], width: float, *, names: Sequence[str] = (), x_label: str = ""
) -> Figure:
    """Panels above each other, one a figure (its label, its lines), over the same axis. `names` are those of places 0,
    1, 2...; without them the axis counts."""
    looks = style.series([line.mark.label for _, some in panels for line in some])
    top = style.legend_height(looks, width)
    bottom = 76.0 if names else 44.0
    height = top + PANEL * len(panels) + bottom
    figure = Figure(figsize=(width / style.POINTS, height / style.POINTS))
    for number, (label, some) in enumerate(panels):
        above = top + 24 + PANEL * number
        inside = PANEL - 36
        box = (64 / width, 1 - (above + inside) / height, (width - 84) / width, inside / height)
        axes = figure.add_axes(box)
        _panel(axes, label, some, looks)
        last = number == len(panels) - 1
        if names:
            axes.set_xlim(-0.3, len(names) - 0.7)
            axes.set_xticks(range(len(names)), names if last else [""] * len(names), rotation=35, ha="right")
        elif last:
            axes.set_xlabel(x_label)
        else:
            axes.tick_params(labelbottom=False)
    style.legend(figure, looks, width)
    return figure


def _panel(axes: Axes, label: str, some: Sequence[Line], looks: Looks) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0, pad=5)
    axes.set_title(label, loc="left", fontsize=style.SMALL, color=COLOURS["muted"])
    for line in some:
        colour, marker = looks[line.mark.label]
        few = len(line.at) <= 12
        axes.fill_between(line.at, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            line.at, line.values, color=colour, marker=marker, markersize=5 if few else 3, linewidth=1.5,
            gid=line.mark.gid or None,
        )  # fmt: skip
    ends = [end for line in some for end in (*line.low, *line.high)]
    if style.is_wide(ends):
        style.set_log(axes.yaxis, min(ends), max(ends), 4)
    else:
        axes.yaxis.set_major_locator(style.few_ticks(axes, 4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: style.number(value)))
    style.light_grid(axes)
