"""Errors of every layer, one row a method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.report.plots import style
from harness.report.plots.style import COLOURS, SMALL, Mark

VECTOR_CELLS = 4_000
"""Above this the cells are one embedded image: a page stays light."""


def layer_map(marks: Sequence[Mark], layers: Sequence[str], errors: np.ndarray, width: float, *, label: str) -> Figure:
    """`errors` is (rows, layers), NaN where a method noted none; colours are logarithmic, empty cells stay blank."""
    beside = width >= style.HALF
    names = _short(layers)
    tall = min(6.4 * max(map(len, names)) + 10, 150.0)
    figure, axes = style.row_axes(marks, width, top=46, bottom=tall + 8, right=10)
    positive = errors[np.isfinite(errors) & (errors > 0)]
    low, high = (positive.min(), positive.max()) if len(positive) else (1e-6, 1.0)
    low, high = (low / 1.5, high * 1.5) if low == high else (low, high)
    shown = np.ma.masked_invalid(np.where(errors > 0, errors, np.where(errors == 0, low, np.nan)))
    height = 0.86 if beside else 0.5
    for at in range(len(marks)):
        top = at - height / 2 + style.baseline_of(width)
        mesh = axes.pcolormesh(
            np.arange(len(layers) + 1), [top, top + height], shown[at : at + 1], norm=LogNorm(low, high),
            cmap="cividis", linewidth=0.4, edgecolors="face", rasterized=errors.size > VECTOR_CELLS, gid=marks[at].gid,
        )  # fmt: skip
    axes.set_xlim(0, len(layers))
    axes.spines["bottom"].set_visible(False)
    room = axes.get_window_extent().width / figure.dpi * style.POINTS / max(len(layers), 1)
    every = max(1, int(np.ceil(12 / room)))
    axes.set_xticks(np.arange(0, len(layers), every) + 0.5, names[::every], rotation=90, fontsize=SMALL)
    _bar(figure, axes, mesh, (float(low), float(high)), label)
    return figure


def _bar(figure: Figure, axes, mesh, ends: tuple[float, float], label: str) -> None:
    """The colours' scale, above the map."""
    box = axes.get_position()
    tall = 8 / style.POINTS / figure.get_figheight()
    wide = min(box.width, 200 / style.POINTS / figure.get_figwidth())
    place = figure.add_axes((box.x0, 1 - 3.4 * tall, wide, tall))
    bar = figure.colorbar(mesh, cax=place, orientation="horizontal")
    bar.outline.set_visible(False)
    bar.ax.xaxis.set_major_locator(FixedLocator(style.log_ticks(*ends, 4)))
    bar.ax.xaxis.set_minor_locator(NullLocator())
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.number(value)))
    bar.ax.tick_params(length=0, pad=3)
    place.set_title(label, fontsize=SMALL, color=COLOURS["muted"], loc="left", pad=4)


def _short(layers: Sequence[str]) -> list[str]:
    """Names without the dotted parts that all begin with.

    >>> _short(["model.layers.0.mlp.up", "model.layers.1.mlp.up"])
    ['0.mlp.up', '1.mlp.up']
    """
    parts = [name.split(".") for name in layers]
    shared = 0
    while len(parts) > 1 and all(len(one) > shared + 1 for one in parts) and len({one[shared] for one in parts}) == 1:
        shared += 1
    return [".".join(one[shared:]) for one in parts]
