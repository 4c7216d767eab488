"""What all plots share: the palette, which a page maps to its theme, and figures laid out in CSS pixels.

A figure of W x H pixels is W/72 x H/72 inches, so that one point of its SVG is one CSS pixel and text keeps the size it
was given wherever the plot is shown unscaled. Every colour is one of `COLOURS`; the page swaps it for the CSS variable
of that name, a printed plot keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

WIDE, HALF, NARROW = 1060, 520, 340
"""Widths in CSS pixels: a whole row of the page, half of one, a phone's screen."""
POINTS = 72.0
TEXT, SMALL = 11.5, 10.0
ROW = 22.0
"""Height of a row of a plot that has one row a method."""
MAX_ROWS = 40

COLOURS = {
    "ink": "#1c1d1f",
    "muted": "#66686d",
    "line": "#d9d9d6",
    "page": "#ffffff",
    "better": "#0b6aa8",
    "worse": "#b8480f",
    "equivalent": "#6a5c9e",
    "inconclusive": "#6d6f75",
    "limit": "#a1343c",
    "series-1": "#1f6fb3",
    "series-2": "#c2560c",
    "series-3": "#0d7d62",
    "series-4": "#97508b",
    "series-5": "#8a6a05",
    "series-6": "#55667a",
    "series-7": "#8f3346",
    "series-8": "#2a8598",
}
"""Told apart with any colour vision by lightness and hue; markers carry the same meaning a second time."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "h")
VERDICTS = {"better": "o", "worse": "s", "equivalent": "D", "inconclusive": "o"}
"""The marker of each verdict; that of `inconclusive` is hollow."""
RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": TEXT,
    "text.parse_math": False,
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.labelsize": TEXT,
    "axes.edgecolor": COLOURS["line"],
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "pdf.fonttype": 42,
    "savefig.transparent": True,
}


@dataclass(frozen=True)
class Mark:
    """A point of a plot: the label of its row, and `row`, the page's key of that row (empty: leads nowhere)."""

    label: str
    row: str = ""

    @property
    def gid(self) -> str:
        """What the page finds an element of the row by: the key, and the label as the element's title."""
        return f"row:{self.row}|{self.label}" if self.row else ""


@contextmanager
def styled(**more: Any) -> Iterator[None]:
    """The plots' style, whatever the user's own matplotlib settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        for name, value in more.items():
            matplotlib.rcParams[name] = value  # type: ignore[index]
        yield


def canvas(width: float, height: float, *, left: float, right: float, top: float, bottom: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; all lengths in CSS pixels, the last four are margins."""
    figure = Figure(figsize=(width / POINTS, height / POINTS))
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    axes = figure.add_axes(box)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0, pad=5)
    return figure, axes


def shortened(label: str, length: int) -> str:
    """The label, its middle left out where it is longer than `length`.

    >>> shortened("gptq(bits=3, group_size=64)", 15)
    'gptq(bi…ize=64)'
    """
    if len(label) <= length:
        return label
    head = length // 2
    return f"{label[:head]}…{label[head + 1 - length :]}"


def series(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The look of each name. Beyond eight the colours come again with the next marker."""
    palette = [COLOURS[f"series-{at}"] for at in range(1, 9)]
    size = len(palette)
    unique = dict.fromkeys(names)
    return {name: (palette[at % size], MARKERS[(at + at // size) % size]) for at, name in enumerate(unique)}


Looks = Mapping[str, tuple[str, str]]
"""(colour, marker) by name."""


def _legend_columns(looks: Looks, width: float) -> int:
    return max(1, int((width - 16) / (6.6 * max(map(len, looks)) + 32)))


def legend_height(looks: Looks, width: float) -> float:
    """The room that `legend` takes on top of a figure, in CSS pixels."""
    return 16.5 * -(-len(looks) // _legend_columns(looks, width)) + 4


def legend(figure: Figure, looks: Looks, width: float) -> None:
    """The names of the series, above everything else."""
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=6.5, label=name)
        for name, (colour, marker) in looks.items()
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.0, 1.0), ncols=_legend_columns(looks, width),
        frameon=False, handletextpad=0.3, columnspacing=1.2, borderpad=0.1, labelspacing=0.3, borderaxespad=0.1,
    )  # fmt: skip


def number(value: float) -> str:
    """A tick's label: four digits at most, no exponent where it can be helped.

    >>> [number(one) for one in (0.0, 0.05, -30.0, 12000.0, 2e-7)]
    ['0', '0.05', '−30', '12000', '2e−07']
    """
    text = f"{value:.0f}" if 1e4 <= abs(value) < 1e6 else f"{value:.4g}"
    return text.replace("-", "\N{MINUS SIGN}")


def log_ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Round numbers between two positive ones: of 1, 2, 3, 5 a decade, fewer where that is too many; evenly spaced ones
    where the two are close."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**power for power in decades for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= wanted:
            break
    if len(inside) < 2:
        inside = [float(tick) for tick in MaxNLocator(wanted).tick_values(low, high) if low <= tick <= high]
    return inside[:: max(1, -(-len(inside) // wanted))]


def set_log(axis: Any, low: float, high: float, wanted: int = 6) -> None:
    """A logarithmic axis (`axes.xaxis` or `axes.yaxis`) with plain numbers on it."""
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    axis.set_major_locator(FixedLocator(log_ticks(low, high, wanted)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def few_ticks(axes: Axes, wanted: int = 0) -> MaxNLocator:
    """Round numbers, as many as the axis has room for (or `wanted`)."""
    room = axes.get_window_extent().width / axes.figure.dpi * POINTS
    return MaxNLocator(wanted or max(3, int(room / 75)))


def is_wide(values: Sequence[float], ratio: float = 20.0) -> bool:
    """Whether positive values span so much that only a logarithmic axis shows them all."""
    return len(values) > 0 and min(values) > 0 and max(values) / min(values) > ratio


def light_grid(axes: Axes, axis: str = "both") -> None:
    axes.set_axisbelow(True)
    axes.grid(axis=axis, color=COLOURS["line"], linewidth=0.6)  # type: ignore[arg-type]


def row_axes(
    marks: Sequence[Mark], width: float, *, top: float, bottom: float, right: float = 14.0
) -> tuple[Figure, Axes]:
    """Axes with a row a mark, the first on top, centred at 0, 1, 2...: labels to the left, or above the rows where the
    plot is narrow. All lengths in CSS pixels."""
    beside = width >= HALF
    longest = max((len(mark.label) for mark in marks), default=0)
    left = min(6.6 * longest + 14, 0.42 * width) if beside else 8.0
    pitch = ROW if beside else 1.7 * ROW
    height = top + bottom + pitch * max(len(marks), 1)
    figure, axes = canvas(width, height, left=left, right=right, top=top, bottom=bottom)
    axes.set_ylim(max(len(marks), 1) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    room = int((left - 14) / 6.4) if beside else int((width - 16) / 6.4)
    for at, mark in enumerate(marks):
        axes.text(
            -10 / (width - left - right) if beside else 0.0, at if beside else at - 0.22,
            shortened(mark.label, max(room, 8)), ha="right" if beside else "left", va="center",
            transform=axes.get_yaxis_transform(), gid=mark.gid or None,
        )  # fmt: skip
    return figure, axes


def baseline_of(width: float) -> float:
    """How far below a row's centre its marks are drawn: labels above take the upper half in a narrow plot."""
    return 0.0 if width >= HALF else 0.2


def shifted(figure: Figure | SubFigure, right: float = 0.0, up: float = 0.0) -> ScaledTranslation:
    """A transform that moves by CSS pixels, to be added to another."""
    return ScaledTranslation(right / POINTS, up / POINTS, figure.dpi_scale_trans)
