"""Plots of the report: what stands where, and SVG that can live in a page."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure as Drawing

from harness.report.figure import most
from harness.report.logged import layers_of
from harness.report.plots import style
from harness.report.plots.bars import Bar, bars
from harness.report.plots.forest import Difference, forest, spans_orders
from harness.report.plots.layers import layer_map
from harness.report.plots.lines import Line, lines
from harness.report.plots.pareto import Point, far_off, pareto
from harness.report.plots.ranks import critical_difference
from harness.report.plots.style import COLOURS, HALF, NARROW, WIDE, Mark, styled
from harness.report.svg import SVG, inline
from harness.stats import rank

LABELS = ["rtn(bits=2)", "gptq(bits=2)", "$x_1$ <b>&", "a_very_long_name(group_size=64, bits=4, clip='mse')"]
MARKS = [Mark(label, f"0.0.{at}") for at, label in enumerate(LABELS)]


def points(values: list[float], on_front: int = 0) -> list[Point]:
    return [
        Point(MARKS[at % 4], LABELS[at % 4].partition("(")[0], 2.0 + at, one, one - 0.1, one + 0.1, at == on_front)
        for at, one in enumerate(values)
    ]


def every_kind(width: float) -> dict[str, Drawing]:
    ranking = rank({label: [float(at), at + 0.1, at + 0.2] for at, label in enumerate(LABELS)}, higher_is_better=False)
    differences = [Difference(mark, at - 1.0, at - 1.5, at - 0.5, "worse") for at, mark in enumerate(MARKS)]
    line = Line(MARKS[0], (0, 1), (1.0, 2.0), (0.9, 1.9), (1.1, 2.1))
    return {
        "pareto": pareto(points([3.0, 2.0, 1.0, 1.5]), width, x_label="bits", y_label="loss"),
        "forest": forest(differences, width, x_label="Δ", higher_is_better=False, margin=0.2),
        "ranks": critical_difference(ranking, {mark.label: mark for mark in MARKS}, width),
        "layers": layer_map(MARKS, ["a.0.up", "a.1.up"], np.array([[0.1, np.nan], [0, 1]] * 2), width, label="error"),
        "bars": bars(
            [Bar(mark, 3.0, (2.0, 3.0, 4.0)) for mark in MARKS], width, x_label="s", limit=5.0, limit_is="limit"
        ),
        "lines": lines([("loss", [line]), ("time", [line])], width, names=["one", "two"]),
    }


@pytest.mark.parametrize("width", [WIDE, HALF, NARROW])
def test_every_kind_keeps_to_its_width(width: float) -> None:
    with styled():
        for name, drawing in every_kind(width).items():
            root = ElementTree.fromstring(inline(drawing, f"{name}-{width}", name))
            assert root.get("viewBox", "").split()[2] == str(width), name
            sizes = {part for text in root.iter(f"{{{SVG}}}text") for part in text.get("style", "").split("; ")}
            assert {part for part in sizes if part.startswith("font-size")} <= {"font-size: 11.5px", "font-size: 10px"}


def test_colours_are_the_themes_and_ids_are_apart() -> None:
    with styled():
        one, other = (inline(every_kind(HALF)["bars"], key, "bars") for key in ("a", "b"))
    assert not [colour for colour in COLOURS.values() if colour in one]
    assert "var(--series-6)" in one
    ids = [{element.get("id") for element in ElementTree.fromstring(svg).iter()} - {None} for svg in (one, other)]
    assert not ids[0] & ids[1]


def test_labels_are_text_and_no_formulas() -> None:
    with styled():
        root = ElementTree.fromstring(inline(every_kind(WIDE)["forest"], "x", "x"))
    texts = ["".join(element.itertext()) for element in root.iter(f"{{{SVG}}}text")]
    assert LABELS[2] in texts
    assert LABELS[3] in texts
    rows = {element.get("data-row"): element.get("aria-label") for element in root.iter() if element.get("tabindex")}
    assert rows == {mark.row: mark.label for mark in MARKS}


def test_the_same_plot_is_the_same_bytes() -> None:
    with styled():
        assert len({inline(every_kind(HALF)["pareto"], "k", "t") for _ in range(2)}) == 1


def test_a_users_own_settings_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    with styled():
        expected = inline(every_kind(HALF)["ranks"], "k", "t")
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30.0)
    with styled():
        assert inline(every_kind(HALF)["ranks"], "k", "t") == expected
    assert matplotlib.rcParams["font.size"] == 30.0


def test_a_point_far_off_does_not_press_the_others_flat() -> None:
    near = [0.97, 0.96, 0.965, 0.95, 0.968, 0.961]
    assert far_off(points(near)) == []
    assert [point.value for point in far_off(points([*near, 0.2]))] == [0.2]
    assert far_off(points([*near, 0.2], on_front=6)) == []  # what is on the front is always shown
    with styled():
        drawing = pareto(points([*near, 0.2]), HALF, x_label="bits", y_label="accuracy")
    assert drawing.axes[0].get_ylim()[0] > 0.8


def test_orders_of_magnitude_get_a_logarithmic_axis() -> None:
    small = [Difference(MARKS[0], 0.01, 0.005, 0.015, "worse")] * 3
    large = Difference(MARKS[1], 3.0, 2.0, 4.0, "worse")
    assert not spans_orders(small)
    assert spans_orders([*small, large])
    with styled():
        axes = forest([*small, large], HALF, x_label="Δ", higher_is_better=True).axes[0]
    assert axes.get_xscale() == "symlog"
    low, high = axes.get_xlim()
    assert low < 0 < 4 < high


def test_the_better_side_follows_the_metric() -> None:
    rows = [Difference(MARKS[0], 1.0, 0.5, 1.5, "better")]
    with styled():
        for higher, first in ((True, "← worse"), (False, "← better")):
            texts = [text.get_text() for text in forest(rows, HALF, x_label="Δ", higher_is_better=higher).axes[0].texts]
            assert first in texts


def test_a_limit_far_away_is_told_in_words() -> None:
    rows = [Bar(MARKS[0], 1.0, (1.0,))]
    with styled():
        for limit, words in ((2.0, "limit: 2 s"), (300.0, "limit: 300 s, 300 times the longest bar")):
            axes = bars(rows, HALF, x_label="s", limit=limit, limit_is="limit", unit="s").axes[0]
            assert words in [text.get_text() for text in axes.texts]
            assert axes.get_xlim()[1] < 3


def test_a_row_stands_beside_its_own_limit() -> None:
    with styled():
        axes = bars([Bar(MARKS[0], 10.0, (10.0,), limit=8.1)], HALF, x_label="ms").axes[0]
    assert "10  81%" in [text.get_text() for text in axes.texts]


def test_methods_that_cannot_be_told_apart_are_joined() -> None:
    ranking = rank({label: [float(at), at + 0.1] for at, label in enumerate(LABELS)}, higher_is_better=False)
    assert ranking.cliques == (tuple(LABELS),)
    with styled():
        axes = critical_difference(ranking, {mark.label: mark for mark in MARKS}, HALF).axes[0]
    bars_joining = [line for line in axes.lines if line.get_linewidth() == 4.0]
    assert [list(line.get_ydata()) for line in bars_joining] == [pytest.approx([-0.28, 3.28])]


def test_layers_are_told_from_the_rest_of_a_log() -> None:
    log = {
        "a": {"weight_error": 0.1, "proxy_loss": None}, "b": {"weight_error": 1}, "passes": {"forward": 3},
        "curve": [{"step": 1}], "tuning": [], "note": {"text": "x"}, "flag": {"done": True},
    }  # fmt: skip
    assert list(layers_of(log)) == ["a", "b"]


def test_a_plot_shows_the_largest_and_says_so() -> None:
    items, said = most(range(100), lambda one: one % 50, "the largest ends", room=4)
    assert items == [48, 49, 98, 99]
    assert said == " The 4 of 100 rows with the largest ends; the table has all."
    assert most([1, 2], lambda one: one, "any") == ([1, 2], "")


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.9, 12.0, [1, 2, 5, 10]), (1e-3, 1e3, [1e-3, 1e-2, 0.1, 1, 10, 100, 1000]), (2.15, 2.65, [2.25, 2.4, 2.55])],
)
def test_ticks_of_a_logarithmic_axis_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert style.log_ticks(low, high, 7 if high > 100 else 4) == pytest.approx(ticks)


def test_saved_plots_hold_nothing_of_the_day() -> None:
    from harness.report.figure import Figure
    from harness.report.write import plot_files

    figure = Figure("key", "Title", "", lambda width: every_kind(width)["bars"])
    first, second = (dict(plot_files([figure, Figure("absent", "A", "why")])) for _ in range(2))
    assert first.keys() == {"key.svg", "key.pdf"}
    assert first == second
    assert b"DejaVuSans" in first["key.pdf"]
    ElementTree.parse(io.BytesIO(first["key.svg"]))
