"""Paired differences to the baseline, with their intervals and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.report.plots import style
from harness.report.plots.style import COLOURS, SMALL, VERDICTS, Mark


@dataclass(frozen=True)
class Difference:
    """A row's difference to its baseline, the interval, and the verdict."""

    mark: Mark
    value: float
    low: float
    high: float
    verdict: str


def forest(
    rows: Sequence[Difference], width: float, *, x_label: str, higher_is_better: bool, margin: float | None = None
) -> Figure:
    """One row a difference. `margin` (in the unit of the difference) is shaded: differences within it do not matter."""
    figure, axes = style.row_axes([row.mark for row in rows], width, top=26, bottom=44, right=18)
    _scale(axes, rows)
    axes.axvline(0, color=COLOURS["muted"], linewidth=1.0, zorder=1)
    if margin is not None:
        axes.axvspan(-margin, margin, color=COLOURS["equivalent"], alpha=0.13, linewidth=0, zorder=0.5)
    below = style.baseline_of(width)
    for at, row in enumerate(rows):
        colour, marker = COLOURS[row.verdict], VERDICTS[row.verdict]
        axes.plot([row.low, row.high], [at + below] * 2, color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
        axes.plot(
            [row.value], [at + below], marker=marker, markersize=6.5, linestyle="", color=colour, markeredgewidth=1.4,
            markerfacecolor=COLOURS["page"] if row.verdict == "inconclusive" else colour, zorder=3, gid=row.mark.gid,
        )  # fmt: skip
    style.light_grid(axes, "x")
    axes.set_xlabel(x_label)
    left, right = ("worse", "better") if higher_is_better else ("better", "worse")
    for x, ha, text, word in ((0.0, "left", f"← {left}", left), (1.0, "right", f"{right} →", right)):
        axes.text(
            x, 1.0, text, transform=axes.transAxes + style.shifted(figure, up=6), ha=ha, va="bottom", fontsize=SMALL,
            color=COLOURS[word],
        )  # fmt: skip
    return figure


def spans_orders(rows: Sequence[Difference]) -> bool:
    """Whether the largest differences would press all others flat against zero on a linear axis."""
    sizes = [max(abs(row.low), abs(row.high)) for row in rows]
    return len(sizes) > 2 and float(np.median(sizes)) > 0 and max(sizes) / float(np.median(sizes)) > 15


def _scale(axes: Axes, rows: Sequence[Difference]) -> None:
    """Linear, or logarithmic away from zero where differences span orders of magnitude."""
    low, high = min([0.0, *(row.low for row in rows)]), max([0.0, *(row.high for row in rows)])
    if not spans_orders(rows):
        room = 0.06 * ((high - low) or 1.0)
        axes.set_xlim(low - room, high + room)
        axes.xaxis.set_major_locator(style.few_ticks(axes))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.number(value)))
        return
    linear = 10.0 ** np.floor(np.log10(np.median([abs(row.value) for row in rows if row.value] or [1.0])))
    axes.set_xscale("symlog", linthresh=linear, linscale=0.8)
    axes.set_xlim(low * 1.4 - linear * 0.2, high * 1.4 + linear * 0.2)
    ticks = [0.0]
    for sign, end in ((-1, -low), (1, high)):
        ticks += [sign * tick for tick in style.log_ticks(linear, max(end, linear) * 1.001, 4)]
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.number(value)))
