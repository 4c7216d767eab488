"""The critical-difference diagram: average ranks over problems, and which of them cannot be told apart."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from harness.report.plots import style
from harness.report.plots.style import COLOURS, SMALL, Mark
from harness.stats import Ranking


def critical_difference(ranking: Ranking, marks: Mapping[str, Mark], width: float) -> Figure:
    """Methods from the best average rank to the worst, one a row. A bar to the right joins methods whose ranks differ
    by less than the critical difference, which is drawn to scale on top."""
    order = sorted(range(len(ranking.names)), key=lambda at: (ranking.ranks[at], at))
    names = [ranking.names[at] for at in order]
    bars = 12.0 * len(ranking.cliques) + 10
    figure, axes = style.row_axes([marks[name] for name in names], width, top=54, bottom=10, right=bars + 8)
    below = style.baseline_of(width)
    for row, at in enumerate(order):
        rank = float(ranking.ranks[at])
        axes.plot([1, rank], [row + below] * 2, color=COLOURS["line"], linewidth=1.0, zorder=1)
        axes.plot(
            [rank], [row + below], "o", color=COLOURS["series-1"], markersize=7, zorder=3, gid=marks[names[row]].gid,
        )  # fmt: skip
        axes.annotate(
            f"{rank:.2f}", (rank, row + below), (7, 0), textcoords="offset points", va="center", fontsize=SMALL,
            color=COLOURS["muted"],
        )  # fmt: skip
    _bars(axes, ranking, names, below)
    _axis(axes, ranking)
    return figure


def _bars(axes, ranking: Ranking, names: list[str], below: float) -> None:
    inside = axes.get_window_extent().width / axes.figure.dpi * style.POINTS
    for number, clique in enumerate(ranking.cliques):
        rows = [names.index(name) for name in clique]
        x = 1 + (12.0 * number + 12) / inside
        axes.plot(
            [x, x], [min(rows) - 0.28 + below, max(rows) + 0.28 + below], transform=axes.get_yaxis_transform(),
            clip_on=False, color=COLOURS["ink"], linewidth=4.0, solid_capstyle="butt",
        )  # fmt: skip


def _axis(axes, ranking: Ranking) -> None:
    """Ranks along the top, with the critical difference above them."""
    methods = len(ranking.names)
    axes.set_xlim(0.9, methods + 0.6)
    axes.xaxis.tick_top()
    axes.spines["bottom"].set_visible(False)
    step = max(1, -(-methods // 8))
    axes.set_xticks(range(1, methods + 1, step))
    inside = axes.get_window_extent().height / axes.figure.dpi * style.POINTS
    y = 1 + 30 / inside
    shown = min(ranking.critical_difference, methods - 0.4)
    across = axes.get_xaxis_transform()
    axes.plot([1, 1 + shown], [y, y], transform=across, clip_on=False, color=COLOURS["ink"], linewidth=1.6)
    for x in (1, 1 + shown):
        axes.plot([x, x], [y - 4 / inside, y + 4 / inside], transform=across, clip_on=False, color=COLOURS["ink"])
    axes.text(
        1, y + 7 / inside, f"critical difference {ranking.critical_difference:.2f}", transform=across, fontsize=SMALL,
        va="bottom", color=COLOURS["ink"],
    )  # fmt: skip
