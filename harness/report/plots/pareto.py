"""Bits against loss, with the front and how sure it is who is on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from harness.report.plots import style
from harness.report.plots.style import COLOURS, SMALL, Mark

SURE = 0.05
"""Points that are on the front in more than this share of the resamples are its 95% region."""

MAX_POINTS = 120
"""More points hide each other, and weigh on the page."""


@dataclass(frozen=True)
class Point:
    """A row of the table at its cost `x`: the metric with its interval, whether it is on the front as measured, and the
    share of resamples in which it is (None: not among those resampled)."""

    mark: Mark
    method: str
    x: float
    value: float
    low: float
    high: float
    on_front: bool = False
    confidence: float | None = None


def pareto(points: Sequence[Point], width: float, *, x_label: str, y_label: str) -> Figure:
    """One mark a row, coloured by method; filled where it may be on the front, hollow where it is not; an arrowhead at
    the edge where it is far off (`far_off`)."""
    looks = style.series([point.method for point in points])
    legend = style.legend_height(looks, width)
    height = (340 if width >= style.HALF else 290) + legend
    figure, axes = style.canvas(width, height, left=58, right=16, top=legend + 12, bottom=44)
    left = far_off(points)
    _scale(axes, points, left)
    _front(axes, points)
    for point, aside in zip(points, _aside(points), strict=True):
        colour, marker = looks[point.method]
        if point in left:
            _at_the_edge(axes, point, colour)
        else:
            _draw(axes, point, colour, marker, aside)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    style.light_grid(axes)
    style.legend(figure, looks, width)
    if width >= style.HALF:
        _name_front(axes, [point for point in points if point not in left])
    return figure


def far_off(points: Sequence[Point]) -> list[Point]:
    """Points so far on the worse side of the others that they would press them flat: beyond the quartiles by more than
    four times their distance (of logarithms where all are positive), and not on the front."""
    values = np.array([point.value for point in points])
    scaled = np.log(values) if style.is_wide([point.value for point in points]) else values
    low, high = np.quantile(scaled, [0.25, 0.75])
    reach = 4 * (high - low)
    away = (scaled < low - reach) | (scaled > high + reach)
    return [point for point, one in zip(points, away, strict=True) if one and not point.on_front and reach > 0]


def _scale(axes: Axes, points: Sequence[Point], left: Sequence[Point]) -> None:
    """Limits that hold every interval but those of the points that are `left` out."""
    inside = [point for point in points if point not in left]
    low, high = min(point.low for point in inside), max(point.high for point in inside)
    if low > 0 and style.is_wide([point.value for point in inside]):
        style.set_log(axes.yaxis, low / 1.15, high * 1.15)
        axes.set_ylim(low / 1.15, high * 1.15)
    else:
        room = 0.07 * ((high - low) or 1.0)
        axes.set_ylim(low - room, high + room)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: style.number(value)))
    xs = [point.x for point in points]
    if style.is_wide(xs, 12.0):
        style.set_log(axes.xaxis, min(xs) / 1.15, max(xs) * 1.15, 7)
        axes.set_xlim(min(xs) / 1.15, max(xs) * 1.15)
    else:
        room = 0.05 * ((max(xs) - min(xs)) or 1.0)
        axes.set_xlim(min(xs) - room, max(xs) + room)


def _front(axes: Axes, points: Sequence[Point]) -> None:
    """Everything on the worse side of the stairs is dominated as measured."""
    members = sorted((point for point in points if point.on_front), key=lambda point: point.x)
    if members:
        far = axes.get_xlim()[1]
        axes.step(
            [*(point.x for point in members), far], [*(point.value for point in members), members[-1].value],
            where="post", color=COLOURS["muted"], linewidth=1.0, linestyle=(0, (4, 3)), zorder=1.5,
        )  # fmt: skip


def _at_the_edge(axes: Axes, point: Point, colour: str) -> None:
    """An arrowhead where the axis ends, towards a point that is off it."""
    up = point.value > axes.get_ylim()[1]
    axes.plot(
        [point.x], [0.985 if up else 0.015], "^" if up else "v", transform=axes.get_xaxis_transform(), markersize=7,
        color=colour, markerfacecolor="none", markeredgewidth=1.4, clip_on=False, zorder=3, gid=point.mark.gid or None,
    )  # fmt: skip


def _aside(points: Sequence[Point]) -> list[float]:
    """How many pixels each point is moved sideways, so that intervals of equal size stand side by side."""
    found = [0.0] * len(points)
    for x in dict.fromkeys(round(point.x, 2) for point in points):
        alike = [at for at, point in enumerate(points) if round(point.x, 2) == x]
        apart = min(6.0, 30.0 / len(alike))
        for place, at in enumerate(alike):
            found[at] = apart * (place - (len(alike) - 1) / 2)
    return found


def _draw(axes: Axes, point: Point, colour: str, marker: str, aside: float) -> None:
    sure = point.on_front or (point.confidence is not None and point.confidence > SURE)
    moved = axes.transData + style.shifted(axes.figure, aside)
    axes.plot(
        [point.x, point.x], [point.low, point.high], color=colour, linewidth=1.4, alpha=0.7, zorder=2, transform=moved,
        scalex=False, scaley=False,
    )  # fmt: skip
    axes.plot(
        [point.x], [point.value], marker=marker, markersize=7, color=colour, linestyle="", markeredgewidth=1.4,
        markerfacecolor=colour if sure else COLOURS["page"], zorder=3, gid=point.mark.gid or None, transform=moved,
        scalex=False, scaley=False,
    )  # fmt: skip


def _name_front(axes: Axes, points: Sequence[Point]) -> None:
    """Write the names of the front's members beside them, where there is room."""
    figure = axes.figure
    inside = axes.get_window_extent()
    scale = figure.dpi / style.POINTS
    taken = []
    for point in points:
        x, y = axes.transData.transform((point.x, point.value)) / scale
        taken.append((x - 6, y - 6, x + 6, y + 6))
    for point in (one for one in points if one.on_front):
        x, y = axes.transData.transform((point.x, point.value)) / scale
        text = style.shortened(point.mark.label, 30)
        wide, tall = 6.1 * len(text), 12.0
        for dx, dy in ((8, 6), (8, -18), (-8 - wide, -18), (-8 - wide, 6)):
            box = (x + dx, y + dy, x + dx + wide, y + dy + tall)
            fits = inside.x0 / scale < box[0] and box[2] < inside.x1 / scale + 10 and inside.y0 / scale < box[1]
            if fits and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                axes.annotate(
                    text, (point.x, point.value), (dx, dy), textcoords="offset points", fontsize=SMALL,
                    va="bottom", ha="left", color=COLOURS["ink"],
                )  # fmt: skip
                break


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
