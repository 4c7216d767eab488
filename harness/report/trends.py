"""The history of a suite's rows: what they came to under one version of the code after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from statistics import fmean

from harness.engine.ledger import Ledger
from harness.engine.record import OK, Record
from harness.report.figure import Figure, problem_key, row_marks
from harness.report.gather import Section
from harness.report.logged import LINES
from harness.report.plots.lines import Line, lines
from harness.report.plots.style import Mark

SOLVE = "solve_seconds"

Measure = Callable[[Record], float | None]


def trend_figure(section: Section, number: int, problem: int, ledger: Ledger) -> Figure | None:
    """The first metric and the solving time of the rows that more than one version of the code has made."""
    label = section.first_metric(problem)
    if label is None:
        return None
    versions = Versions(section, problem, ledger)
    measures: dict[str, Measure] = {
        section.metrics[problem][label]: lambda record: record.metrics.get(label, {}).get("value"),
        "seconds to solve": lambda record: record.cost.get(SOLVE, {}).get("value"),
    }
    marks = row_marks(section, number, problem)
    moved = [row for row in range(len(marks)) if len(versions.of(row)) > 1]
    key, title = problem_key(section, problem, "history"), "History over commits"
    if not moved:
        return Figure(
            key, title, "Every row was made by one version of its method's code so far. A second version adds a point; "
            "the older records stay in the ledger."
        )  # fmt: skip
    first = next(iter(measures.values()))
    moved = sorted(moved, key=lambda row: -_change(versions.of(row), first))[:LINES]
    panels = [
        (name, [line for row in sorted(moved) if (line := _line(marks[row], versions, row, measure)) is not None])
        for name, measure in measures.items()
    ]
    panels = [(name, some) for name, some in panels if some]
    more = sum(len(versions.of(row)) > 1 for row in range(len(marks))) - len(moved)
    caption = "Means over seeds, the band from the least seed to the largest; versions in the order of their first run."
    caption += f" The {LINES} rows that changed most; {more} more have a history." if more else ""
    return Figure(key, title, caption, partial(lines, panels, names=versions.labels), wide=True)


class Versions:
    """The versions of the code that made a problem's records: a commit where it is known, else the method's source."""

    def __init__(self, section: Section, problem: int, ledger: Ledger):
        self.section, self.problem = section, problem
        rows = range(len(section.scope.points))
        everything = {row: [*section.older.get((problem, row), ()), *section.records(problem, row)] for row in rows}
        hashes = dict.fromkeys(record.environment for records in everything.values() for record in records)
        self.commits = {one: ledger.environment(one).get("commit") or "" for one in hashes}
        self.rows = {row: self._by_version(records) for row, records in everything.items()}
        begun: dict[str, float] = {}
        for versions in self.rows.values():
            for name, records in versions.items():
                begun[name] = min([begun.get(name, records[0].created), *(one.created for one in records)])
        self.order = sorted(begun, key=lambda name: begun[name])
        self.labels = [f"{name}  {datetime.fromtimestamp(begun[name], UTC):%Y-%m-%d}" for name in self.order]

    def of(self, row: int) -> Mapping[str, Sequence[Record]]:
        return self.rows[row]

    def _by_version(self, records: Sequence[Record]) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in (one for one in records if one.status == OK):
            commit = self.commits[record.environment]
            name = commit[:9] + "+" * commit.endswith("+") if commit else f"source {record.version[:7]}"
            found.setdefault(name, []).append(record)
        return found


def _values(records: Sequence[Record], measure: Measure) -> list[float]:
    return [value for record in records if (value := measure(record)) is not None]


def _change(versions: Mapping[str, Sequence[Record]], measure: Measure) -> float:
    """How far apart the versions' means are, relative to the largest."""
    means = [fmean(values) for records in versions.values() if (values := _values(records, measure))]
    largest = max(map(abs, means), default=0.0)
    return (max(means) - min(means)) / largest if largest else 0.0


def _line(mark: Mark, versions: Versions, row: int, measure: Measure) -> Line | None:
    found = {name: _values(records, measure) for name, records in versions.of(row).items()}
    found = {name: values for name, values in found.items() if values}
    names = [name for name in versions.order if name in found]
    if not names:
        return None
    return Line(
        mark,
        tuple(versions.order.index(name) for name in names),
        tuple(fmean(found[name]) for name in names),
        tuple(min(found[name]) for name in names),
        tuple(max(found[name]) for name in names),
    )
