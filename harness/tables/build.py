"""From the records of a suite to its tables, one a problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from harness import registry
from harness.engine.ledger import Ledger
from harness.engine.pairing import pair_with_baseline
from harness.engine.plan import Point, Trial, suite_points
from harness.engine.record import OK, Record
from harness.engine.suite import Problem, Suite
from harness.errors import BadInput
from harness.params import bind, format_call, parse_expression
from harness.stats import Comparison, ScoreSet
from harness.tables.model import (
    BITS,
    FAILED,
    MEMORY,
    METHOD,
    SECONDS,
    SEEDS,
    SIZE,
    Column,
    Quantity,
    Row,
    Table,
    Value,
)  # fmt: skip
from harness.tables.statistics import Compared, evaluate

MEGA = 1e6
Taken = Mapping[int, Record]
"""Records of one row by seed."""


@dataclass(frozen=True)
class Scope:
    """Which trials of a suite a table is of. Only names are looked up: neither data nor model need be at hand."""

    suite: Suite
    problems: Sequence[Problem]
    points: Sequence[Point]
    seeds: Sequence[int]
    limit: int | None = None

    @classmethod
    def of(cls, suite: Suite, *, seeds: int | None = None, limit: int | None = None, model: str | None = None) -> Scope:
        chosen = suite.seeds if seeds is None else tuple(range(seeds))
        return cls(suite, suite.problems(model), suite_points(suite), chosen, limit)

    def places(self) -> dict[str, tuple[int, int, int]]:
        """Where a record belongs, by the cell it fills: (problem, method point, seed)."""
        suite = self.suite
        return {
            Trial(suite.name, suite.track, point, problem.spec, {}, seed, (), self.limit).cell: (at, row, seed)
            for at, problem in enumerate(self.problems)
            for row, point in enumerate(self.points)
            for seed in self.seeds
        }


def tabulate(scope: Scope, ledger: Ledger) -> list[Table]:
    """The tables of a suite, from the newest record of each of its cells."""
    found = collect(scope, ledger)
    return [
        _Builder(scope, at, [found.get((at, row), {}) for row in range(len(scope.points))], ledger).table()
        for at in range(len(scope.problems))
    ]


def collect(scope: Scope, ledger: Ledger) -> dict[tuple[int, int], dict[int, Record]]:
    """Records by (problem, method point), then by seed: the newest of every cell."""
    places = scope.places()
    found: dict[tuple[int, int], dict[int, Record]] = {}
    for record in ledger.records(suite=scope.suite.name):
        if record.cell in places:
            at, row, seed = places[record.cell]
            found.setdefault((at, row), {})[seed] = record
    return found


def metric_labels(problem: Problem) -> list[str]:
    """The labels under which records keep the problem's metrics, in the suite's order."""
    labels = []
    for expression in problem.metrics:
        entry = registry.resolve(expression, "metric")
        labels += [format_call(entry.name, given) for given in bind(expression, entry.params, entry.name)]
    return list(dict.fromkeys(labels))


def short_names(labels: Sequence[str]) -> dict[str, str]:
    """Each label with no more parameters than tell it from the others of its metric.

    >>> short_names(["ppl(data=a, context=9)", "ppl(data=b, context=9)", "top1"])
    {'ppl(data=a, context=9)': 'ppl(a)', 'ppl(data=b, context=9)': 'ppl(b)', 'top1': 'top1'}
    """
    calls = {label: parse_expression(label) for label in labels}
    short = {}
    for label, call in calls.items():
        others = [other.values for key, other in calls.items() if other.name == call.name and key != label]
        telling = [key for key, value in call.values.items() if all(one.get(key) != value for one in others)]
        if not others or not telling:
            short[label] = label if others else call.name
        else:
            short[label] = f"{call.name}({call.values[telling[0]]})"
    return short


def row_labels(points: Sequence[Point]) -> list[str]:
    """Each method with its parameters that vary in this table or are not the default."""
    labels = []
    for point in points:
        siblings = [other.params for other in points if other.method == point.method]
        params = registry.get(point.method).params
        shown = {
            name: value
            for name, value in point.params.items()
            if value != params[name].default or any(other[name] != value for other in siblings)
        }
        labels.append(format_call(point.method, shown))
    return labels


class _Builder:
    """One problem's table, while it is put together."""

    def __init__(self, scope: Scope, at: int, taken: Sequence[Taken], ledger: Ledger):
        self.scope, self.problem, self.taken, self.ledger = scope, scope.problems[at], taken, ledger
        self.at = at
        self.ok = [{seed: one for seed, one in row.items() if one.status == OK} for row in taken]
        self.partners = pair_with_baseline([(p.method, p.params) for p in scope.points], scope.suite.baseline)
        self.notes: list[str] = []
        self.row_notes: list[list[str]] = [[] for _ in scope.points]
        self.columns = [Column(METHOD, "method", text=True)]
        self.values: list[dict[str, Value]] = [{METHOD: label} for label in row_labels(scope.points)]

    def table(self) -> Table:
        labels = metric_labels(self.problem)
        self._size()
        self._explain(labels)
        short = short_names(labels)
        for label in labels:
            self._metric(label, short[label])
        self._cost()
        self._counts()
        general = len(self.notes)
        rows = [
            Row(point.method, dict(point.params), values, self._numbers(notes))
            for point, values, notes in zip(self.scope.points, self.values, self.row_notes, strict=True)
        ]
        suite = self.scope.suite
        return Table(suite.name, self._title(), dict(self.problem.spec), self.columns, rows, self.notes, general)

    def _title(self) -> str:
        spec = self.problem.spec
        name = str(spec.get("model", f"problem {self.at + 1}"))
        same = sum(other.spec.get("model") == spec.get("model") for other in self.scope.problems)
        limit = f", first {self.scope.limit} items of each metric" if self.scope.limit else ""
        return (f"{name} (problem {self.at + 1})" if same > 1 and "model" in spec else name) + limit

    def _numbers(self, notes: Sequence[str]) -> tuple[int, ...]:
        """The numbers of a row's notes; a note that several rows share is listed once."""
        for note in notes:
            if note not in self.notes:
                self.notes.append(note)
        return tuple(sorted(self.notes.index(note) + 1 for note in dict.fromkeys(notes)))

    def _column(self, column: Column, values: Sequence[Value]) -> None:
        """Add a column, unless it would be empty."""
        if any(value is not None for value in values):
            self.columns.append(column)
            for row, value in zip(self.values, values, strict=True):
                row[column.key] = value

    def _size(self) -> None:
        for column, field, unit in (
            (Column(BITS, "bits/weight"), "bits_per_weight", 1.0),
            (Column(SIZE, "model", "MB"), "model_bytes", MEGA),
        ):
            figures = [[one.size.get(field) for one in row.values()] for row in self.ok]
            self._column(column, [_mean(row, unit) for row in figures])

    def _explain(self, labels: Sequence[str]) -> None:
        seeds = len(self.scope.seeds)
        over = f"over items and {seeds} seeds" if seeds > 1 else "over items; one seed, so not over seeds"
        self.notes.append(f"Intervals are 95% bootstrap intervals {over}.")
        if any(partner is not None for partner in self.partners):
            self.notes.append(
                f"Δ: paired difference (same items, same seeds) to the row of {self.scope.suite.baseline} that has the "
                "same values of the parameters both have; Δ ln: of the metric's natural logarithm. Verdicts hold after "
                "Holm's correction over the rows with that baseline."
            )

    def _metric(self, label: str, name: str) -> None:
        sets = [self._scores(at, label) for at in range(len(self.ok))]
        present = [one for one in sets if one is not None]
        if not present:
            return
        arrow = "↑" if present[0].higher_is_better else "↓"
        logarithm = present[0].summary == "exp_mean"
        found = evaluate(sets, self.partners, self.scope.suite.margins.get(parse_expression(label).name))
        self._column(Column(label, f"{name} {arrow}", group=label), [_estimate(one) for one in found])
        self._column(
            Column(f"{label} difference", "Δ ln" if logarithm else "Δ", group=label),
            [self._difference(at, one) for at, one in enumerate(found)],
        )
        for at, one in enumerate(found):
            if one.problem:
                self.row_notes[at].append(f"{name}: not compared: {one.problem}.")
        for signature in dict.fromkeys(one.signature for one in present):
            self.notes.append(f"{name}: {signature}")

    def _scores(self, at: int, label: str) -> ScoreSet | None:
        """The row's scores over the seeds that ended well."""
        taken = {seed: self.ledger.scores(one, label) for seed, one in self.ok[at].items() if label in one.metrics}
        scores = {seed: one for seed, one in taken.items() if one is not None}
        if not scores:
            return None
        try:
            return ScoreSet.stack(list(scores.values()), list(scores))
        except BadInput as error:
            self.row_notes[at].append(f"{label}: its seeds cannot be put together: {error}.")
            return None

    def _difference(self, at: int, one: Compared) -> Value:
        if one.difference is not None:
            return _quantity(one.difference)
        return "baseline" if at in self.partners and one.scores is not None else None

    def _cost(self) -> None:
        seconds = [_figures(row, "wall_seconds") for row in self.ok]
        peaks = [_figures(row, "peak_memory_bytes") for row in self.ok]
        self._column(
            Column(SECONDS, "time", "s"), [Quantity(median(row), digits=3) if row else None for row in seconds]
        )
        self._column(
            Column(MEMORY, "peak memory", "MB"), [Quantity(max(row) / MEGA, digits=3) if row else None for row in peaks]
        )
        records = [record for row in self.ok for record in row.values()]
        if any(seconds):
            self.notes.append("Time: wall clock of a trial with its evaluation, the median over seeds.")
        if any(record.cost.get("peak_memory_bytes", {}).get("kind") == "proxy" for record in records):
            self.notes.append("Peak memory is an upper bound: of the process's whole life.")
        places = [self.ledger.environment(one) for one in dict.fromkeys(record.environment for record in records)]
        self.notes += list(dict.fromkeys(_machine(place) for place in places if place))

    def _counts(self) -> None:
        planned = len(self.scope.seeds)
        self._column(Column(SEEDS, "seeds", text=True), [f"{len(row)}/{planned}" for row in self.ok])
        failed = [len(row) - len(ok) for row, ok in zip(self.taken, self.ok, strict=True)]
        self._column(Column(FAILED, "failed", text=True), [str(count) for count in failed])
        for at, (point, row) in enumerate(zip(self.scope.points, self.taken, strict=True)):
            self.row_notes[at] += _shortcomings(point, row, planned)


def _shortcomings(point: Point, row: Taken, planned: int) -> list[str]:
    """What a reader must know of a row that is not whole: failures, seeds that were not run, old code."""
    reasons: dict[str, list[int]] = {}
    for seed, record in sorted(row.items()):
        if record.status != OK:
            reasons.setdefault(f"{record.status}: {record.reason}", []).append(seed)
    notes = [f"Seed {', '.join(map(str, seeds))} {reason}" for reason, seeds in reasons.items()]
    if len(row) < planned:
        notes.append(f"{planned - len(row)} of {planned} seeds have not been run.")
    if any(record.version != point.version for record in row.values()):
        notes.append(f"Made by another version of the source of {point.method}; `harness run` makes it anew.")
    return notes


def _figures(row: Taken, figure: str) -> list[float]:
    """One figure of the cost of every seed that has it."""
    values = [record.cost.get(figure, {}).get("value") for record in row.values()]
    return [value for value in values if value is not None]


def _machine(place: Mapping[str, Any]) -> str:
    """What a trial ran on, in a line."""
    packages = place.get("packages", {})
    gpus = "".join(f", {gpu['name']}" for gpu in place.get("gpus", []))
    commit = f" ({place['commit'][:9]}{'+' * place['commit'].endswith('+')})" if place.get("commit") else ""
    return (
        f"Run with harness {place.get('harness')}{commit}, torch {packages.get('torch')}, on {place.get('cpu')} "
        f"({place.get('simd')}){gpus}; threads a trial: {place.get('threads')}, trials at once: {place.get('jobs')}."
    )


def _mean(values: Sequence[float | None], unit: float) -> Quantity | None:
    known = [value for value in values if value is not None]
    return Quantity(fmean(known) / unit) if known else None


def _estimate(one: Compared) -> Quantity | None:
    if one.interval is None:
        return None
    return Quantity(one.interval.value, one.interval.low, one.interval.high)


def _quantity(one: Comparison) -> Quantity:
    return Quantity(one.difference, one.low, one.high, one.verdict, signed=True)
