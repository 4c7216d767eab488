"""Measured figures beside what limits them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from harness.report.plots import style
from harness.report.plots.style import COLOURS, SMALL, Mark

NEAR = 2.5
"""A limit further away than this many times the longest bar is told in words, so that the bars stay readable."""

MAX_DOTS = 30
"""Of more seeds only the extremes are shown."""


@dataclass(frozen=True)
class Bar:
    """One row: the figure of every seed, `value` what stands for them, and the row's own limit where it has one."""

    mark: Mark
    value: float
    seeds: tuple[float, ...] = ()
    limit: float | None = None


def bars(
    rows: Sequence[Bar], width: float, *, x_label: str, limit: float | None = None, limit_is: str = "", unit: str = ""
) -> Figure:
    """One bar a row and a dot a seed, the value to the right. `limit` is one for all rows, `limit_is` its name; a row's
    own is a tick on it, and stands to the right as a share of the value."""
    right = 96.0 if any(row.limit is not None for row in rows) else 58.0
    figure, axes = style.row_axes([row.mark for row in rows], width, top=26, bottom=44, right=right)
    longest = max([*(row.value for row in rows), *(one for row in rows for one in row.seeds), 0.0]) or 1.0
    near = limit is not None and limit <= NEAR * longest
    axes.set_xlim(0, 1.04 * (max(longest, limit) if near and limit is not None else longest))
    below = style.baseline_of(width)
    for at, row in enumerate(rows):
        axes.barh(
            at + below, row.value, height=0.5 if below == 0 else 0.3, color=COLOURS["series-6"], alpha=0.55,
            linewidth=0, gid=row.mark.gid,
        )  # fmt: skip
        seeds = row.seeds if len(row.seeds) <= MAX_DOTS else (min(row.seeds), max(row.seeds))
        axes.plot(
            seeds, [at + below] * len(seeds), "o", color=COLOURS["ink"], markersize=3.2, markeredgewidth=0,
        )  # fmt: skip
        text = style.number(float(f"{row.value:.3g}"))
        if row.limit is not None:
            axes.plot([row.limit] * 2, [at + below - 0.34, at + below + 0.34], color=COLOURS["limit"], linewidth=2.2)
            text = f"{text}  {row.limit / row.value:.0%}"
        axes.text(
            1.0, at + below, text, transform=axes.get_yaxis_transform() + style.shifted(figure, right - 4), ha="right",
            va="center", fontsize=SMALL,
        )  # fmt: skip
    style.light_grid(axes, "x")
    axes.set_xlabel(x_label)
    if limit is not None:
        words = f"{limit_is}: {style.number(limit)} {unit}".rstrip()
        if near:
            axes.axvline(limit, color=COLOURS["limit"], linewidth=1.6)
        else:
            words += f", {limit / longest:.0f} times the longest bar"
        axes.annotate(
            words, (limit / axes.get_xlim()[1] if near else 1.0, 1.0), (0, 6), xycoords="axes fraction",
            textcoords="offset points", ha="right", va="bottom", fontsize=SMALL, color=COLOURS["limit"],
        )  # fmt: skip
    return figure
