"""The plots of a suite: which there are, what each shows, and why one is absent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median

from harness.engine.ledger import Ledger
from harness.engine.record import Record
from harness.errors import BadInput
from harness.report.figure import Figure, most, problem_key, quantities, row_marks
from harness.report.gather import Section
from harness.report.logged import curve_figure, layer_figure
from harness.report.plots.bars import Bar, bars
from harness.report.plots.forest import Difference, forest, spans_orders
from harness.report.plots.pareto import MAX_POINTS, Point, far_off, pareto
from harness.report.plots.ranks import critical_difference
from harness.report.plots.style import Mark
from harness.scores import LOGARITHMIC
from harness.stats import Membership, pareto_front, rank
from harness.tables.model import BITS, SIZE


def problem_figures(section: Section, number: int, problem: int, ledger: Ledger) -> list[Figure]:
    """The plots of one problem; `number` is the suite's place in the report."""
    marks = row_marks(section, number, problem)
    found = []
    for label, name in section.metrics[problem].items():
        if section.about(problem, label):
            found += [
                _pareto(section, problem, label, name, marks, ledger),
                _forest(section, problem, label, name, marks),
                *_latency(section, problem, label, name, marks),
            ]
    found += [layer_figure(section, problem, marks), curve_figure(section, problem, marks)]
    found += _costs(section, problem, marks)
    return [one for one in found if one]


def _pareto(
    section: Section, problem: int, label: str, name: str, marks: Sequence[Mark], ledger: Ledger
) -> Figure | None:
    key, title = problem_key(section, problem, name, "pareto"), f"Size against {name}"
    size = next((one for one in section.tables[problem].columns if one.key in (BITS, SIZE)), None)
    values = quantities(section, problem, label)
    costs = quantities(section, problem, size.key) if size else {}
    rows = [at for at in values if at in costs]
    if size is None or len(rows) < 2:
        return None  # nothing to weigh the metric against
    members, lost = _front(section, problem, label, {at: costs[at].value for at in rows}, ledger)
    higher = section.about(problem, label)["higher_is_better"]
    points = []
    for at in rows:
        value, member = values[at], members.get(at)
        low, high = (value.value if end is None else end for end in (value.low, value.high))
        points.append(
            Point(marks[at], section.tables[problem].rows[at].method, costs[at].value, value.value, low, high,
                  bool(member and member.on_front), member.confidence if member else None)
        )  # fmt: skip
    caption = (
        "Bars are 95% intervals. Filled: on the front in more than 5% of the resamples of items and seeds, which all "
        "rows share. Dashed: the front as measured; what is on its worse side is beaten in size and in loss. Rows of "
        f"one size stand side by side.{lost}"
    )
    label_y = f"{name} {'↑' if higher else '↓'}"
    sign = 1 if higher else -1
    numbers = {point.mark: values[at].number for at, point in zip(rows, points, strict=True)}
    points, left = most(
        points, lambda one: (one.on_front, one.confidence or 0.0, sign * one.value), "the best chances", MAX_POINTS
    )
    away = [f"{one.mark.label} ({numbers[one.mark]})" for one in far_off(points)]
    caption += left
    caption += f" Off the scale: {', '.join(away)}." if away else ""
    draw = partial(pareto, points, x_label=size.heading, y_label=label_y)
    return Figure(key, title, caption, draw)


def _front(
    section: Section, problem: int, label: str, costs: dict[int, float], ledger: Ledger
) -> tuple[dict[int, Membership], str]:
    """Membership in the front of the rows whose seeds are whole, and what to say of the others."""
    whole = [at for at in costs if section.complete(problem, at)]
    sets = {str(at): one for at in whole if (one := section.scores(problem, at, label, ledger)) is not None}
    try:
        found = pareto_front({at: costs[int(at)] for at in sets}, sets)
    except BadInput as error:
        return {}, f" The front is not drawn: {error}."
    left = len(costs) - len(found)
    lost = f" {left} {'row lacks' if left == 1 else 'rows lack'} seeds and stand outside the front." if left else ""
    return {int(at): one for at, one in found.items()}, lost


def _forest(section: Section, problem: int, label: str, name: str, marks: Sequence[Mark]) -> Figure | None:
    found = quantities(section, problem, f"{label} difference")
    rows = [
        Difference(marks[at], one.value, one.low, one.high, one.word)
        for at, one in found.items()
        if one.low is not None and one.high is not None and one.word
    ]
    if not rows:
        return None
    rows, left = most(rows, lambda row: abs(row.value), "the largest differences")
    about, margin = section.about(problem, label), section.margin(problem, label)
    unit = "Δ ln" if about["summary"] in LOGARITHMIC else "Δ"
    caption = (
        f"Each row minus the row of {section.suite.baseline} with the same values of the parameters both have: same "
        "items, same seeds. Bars are 95% intervals. "
        "Circle: better. Square: worse. Diamond: equivalent. Hollow: inconclusive."
    )
    caption += " Shaded: the suite's margin." if margin is not None else ""
    caption += " The axis is logarithmic away from zero." if spans_orders(rows) else ""
    draw = partial(forest, rows, x_label=f"{unit} {name}", higher_is_better=about["higher_is_better"], margin=margin)
    key = problem_key(section, problem, name, "differences")
    return Figure(key, f"Paired differences in {name}", caption + left, draw)


def _latency(section: Section, problem: int, label: str, name: str, marks: Sequence[Mark]) -> list[Figure]:
    """A metric whose records hold a `limit` (the least that the machine allows, in the metric's unit) beside it."""
    rows = []
    for at, mark in enumerate(marks):
        taken = [one.metrics[label] for one in section.records(problem, at) if label in one.metrics]
        limits = [one["extra"]["limit"] for one in taken if one["extra"].get("limit")]
        if limits:
            values = tuple(one["value"] for one in taken)
            rows.append(Bar(mark, median(values), values, median(limits)))
    if not rows:
        return []
    rows, left = most(rows, lambda row: row.value, "the longest bars")
    unit = section.about(problem, label)["unit"]
    draw = partial(bars, rows, x_label=f"{name} ({unit})" if unit else name)
    caption = f"The median over seeds; a tick is the limit of the machine, measured in the same run.{left}"
    return [Figure(problem_key(section, problem, name, "limit"), f"{name} beside its limit", caption, draw)]


def _costs(section: Section, problem: int, marks: Sequence[Mark]) -> list[Figure]:
    limits = section.suite.limits
    figures = (
        ("wall_seconds", "Time of a trial", "seconds", 1.0, limits.seconds),
        ("peak_memory_bytes", "Peak memory of a trial", "GB", 1e9, limits.memory_gb),
        ("energy_joules", "Energy of a trial", "joules", 1.0, None),
    )
    found = []
    for field, title, unit, scale, limit in figures:
        rows = []
        for at, mark in enumerate(marks):
            seeds = tuple(one / scale for one in _spent(section.records(problem, at), field))
            if seeds:
                rows.append(Bar(mark, median(seeds), seeds))
        if not rows:
            continue
        rows, left = most(rows, lambda row: row.value, "the longest bars")
        draw = partial(bars, rows, x_label=unit, limit=limit, limit_is="limit of the suite", unit=unit)
        caption = f"With its evaluation; the median over seeds, a dot a seed.{left}"
        found.append(Figure(problem_key(section, problem, field.partition("_")[0]), title, caption, draw))
    return found


def _spent(records: Sequence[Record], field: str) -> list[float]:
    values = [record.cost.get(field, {}).get("value") for record in records]
    return [value for value in values if value is not None]


def rank_figure(section: Section, number: int) -> Figure:
    """Average ranks over the suite's problems, or why there are none."""
    title, key = "Ranks over problems", f"{section.suite.name}-ranks"
    first = {at: label for at in range(len(section.metrics)) if (label := section.first_metric(at)) is not None}
    problems = list(first)
    if len(problems) < 2:
        return Figure(
            key, title, "A critical-difference diagram needs two or more problems; this suite has one with results. "
            "Seeds of one problem are repetitions, not independent data sets, and are not ranked in their place."
        )  # fmt: skip
    scores: dict[str, list[float]] = {}
    marks = row_marks(section, number, problems[0])
    ranked = [at for at, row in enumerate(section.tables[problems[0]].rows) if row.role != "reference"]
    for row in ranked:
        mark = marks[row]
        values = [quantities(section, at, first[at]).get(row) for at in problems]
        if all(value is not None and section.complete(at, row) for at, value in zip(problems, values, strict=True)):
            scores[mark.label] = [
                -value.value if section.about(at, first[at])["higher_is_better"] else value.value
                for at, value in zip(problems, values, strict=True)
                if value is not None
            ]
    if len(scores) < 3:
        reason = f"Ranks need three or more rows with every seed on every problem; {len(scores)} are so."
        return Figure(key, title, reason)
    ranking = rank(scores, higher_is_better=False)
    names = ", ".join(f"{section.metrics[at][first[at]]} on {section.tables[at].title}" for at in problems)
    left = len(ranked) - len(scores)
    caption = (
        f"Average ranks over {len(problems)} problems ({names}), 1 is best. Friedman test (Iman and Davenport): "
        f"p {_probability(ranking.friedman_p)}. Rows that a bar to the right joins differ by less than the critical "
        f"difference of Nemenyi's test at 5%: {len(problems)} problems cannot tell them apart."
    )
    caption += " References are not ranked." if len(ranked) < len(marks) else ""
    caption += f" {left} without every seed on every problem are left out." if left else ""
    by_label = {mark.label: mark for mark in marks}
    return Figure(key, title, caption, partial(critical_difference, ranking, by_label), wide=True)


def _probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"
