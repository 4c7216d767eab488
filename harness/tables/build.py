"""From the records of a suite to its tables, one a problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from statistics import fmean, median
from typing import Any

from harness import registry
from harness.engine.ledger import Ledger
from harness.engine.pairing import matches, pair_with_baseline
from harness.engine.plan import Point
from harness.engine.record import OK
from harness.engine.tracks import track_module
from harness.errors import BadInput
from harness.params import parse_expression
from harness.scores import LOGARITHMIC
from harness.stats import Comparison, ScoreSet
from harness.tables.citation import Citation, Tally, table_id
from harness.tables.control import NullControl, null_control
from harness.tables.hardware import depends_on_machine, require_one_machine
from harness.tables.model import (
    BITS,
    FAILED,
    MEMORY,
    METHOD,
    SECONDS,
    SEEDS,
    SIZE,
    Column,
    Evidence,
    Quantity,
    Row,
    Table,
    Value,
)  # fmt: skip
from harness.tables.ranking import groups, mark
from harness.tables.scope import (
    Scope,
    Taken,
    collect,
    machines,
    metric_labels,
    read_scores,
    row_labels,
    short_names,
    stack,
    succeeded,
)
from harness.tables.statistics import ALPHA, CONFIDENCE, RESAMPLES, Compared, evaluate

__all__ = ["Scope", "collect", "metric_labels", "short_names", "tabulate"]
MEGA = 1e6
_CORRECTIONS = {"holm": "Holm's correction", "bh": "Benjamini and Hochberg's correction", "none": "no correction"}


def tabulate(scope: Scope, ledger: Ledger) -> list[Table]:
    """The tables of a suite, from the newest record of each of its cells."""
    found = collect(scope, ledger)
    return [
        _Builder(scope, at, [found.get((at, row), {}) for row in range(len(scope.points))], ledger).table()
        for at in range(len(scope.problems))
    ]


def settings(scope: Scope) -> dict[str, Any]:
    """What the statistics of a table were told: part of its id."""
    suite = scope.suite
    return {
        "confidence": CONFIDENCE, "resamples": RESAMPLES, "alpha": ALPHA, "correction": scope.correction,
        "baseline": str(suite.baseline), "margins": suite.margins,
    }  # fmt: skip


class _Builder:
    """One problem's table, while it is put together."""

    def __init__(self, scope: Scope, at: int, taken: Sequence[Taken], ledger: Ledger):
        self.scope, self.problem, self.taken, self.ledger = scope, scope.problems[at], taken, ledger
        self.at = at
        self.ok = [succeeded(row) for row in taken]
        rows = [(point.method, point.params) for point in scope.points]
        # Where a trial times the baseline itself, its metrics are comparisons already.
        self.within = scope.suite.track in registry.INTERLEAVED
        baseline = None if self.within else scope.suite.baseline
        self.partners = pair_with_baseline(rows, baseline)
        self.baselines = [at for at, row in enumerate(rows) if baseline is not None and matches(row, baseline)]
        self.roles = [registry.get(point.method, track=scope.suite.track).role for point in scope.points]
        self.tally = Tally()
        self.notes: list[str] = []
        self.protocol: list[str] = []
        self.row_notes: list[list[str]] = [[] for _ in scope.points]
        self.columns = [Column(METHOD, "method", text=True)]
        self.labels = row_labels(scope.points, scope.suite.track)
        self.values: list[dict[str, Value]] = [{METHOD: label} for label in self.labels]

    def table(self) -> Table:
        for row in self.taken:
            for record in row.values():
                self.tally.record(record)
        labels = metric_labels(self.problem)
        self._size()
        self._explain(labels)
        short = short_names(labels)
        for label in labels:
            self._metric(label, short[label])
        self._cost()
        self._counts()
        self._remarks()
        general = len(self.notes)
        rows = [
            Row(point.method, dict(point.params), values, self._numbers(notes), role)
            for point, values, notes, role in zip(
                self.scope.points, self.values, self.row_notes, self.roles, strict=True
            )
        ]
        suite = self.scope.suite
        return Table(
            suite.name, self._title(), dict(self.problem.spec), self.columns, rows, self.notes, general,
            self.protocol, self._citation(), suite.title,
        )  # fmt: skip

    def _citation(self) -> Citation:
        records = self.tally.digest()
        identity = table_id(self.scope.suite.name, self.at + 1, records, settings(self.scope))
        return Citation(identity, self.scope.command)

    def _title(self) -> str:
        limit = f", first {self.scope.limit} items of each metric" if self.scope.limit else ""
        return self.scope.title(self.at) + limit

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
        if not any(self.ok):
            ended = sum(map(len, self.taken))
            self.notes.append(f"No trial has succeeded: {ended} failed." if ended else "No trial has been run yet.")
            return
        seeds = len(self.scope.seeds)
        if self.within:
            self.notes.append(self._explain_rounds(seeds))
            return
        over = f"over items and {seeds} seeds" if seeds > 1 else "over items; one seed, so not over seeds"
        self.notes.append(f"Intervals are 95% bootstrap intervals {over}.")
        correction = _CORRECTIONS[self.scope.correction]
        if any(partner is not None for partner in self.partners):
            self.notes.append(
                f"Δ: paired difference (same items, same seeds) to the row of {self.scope.suite.baseline} that has the "
                "same values of the parameters both have; Δ ln: of the metric's natural logarithm. Verdicts hold after "
                f"{correction} over the rows with that baseline."
            )
        self.notes.append(self._explain_marks(correction))

    def _explain_rounds(self, seeds: int) -> str:
        over = "of the median over rounds, by order statistics" if seeds == 1 else f"of the mean over {seeds} seeds"
        return (
            f"Intervals are 95% intervals {over}. A trial times its method and {self.scope.suite.baseline} in turns "
            "(A B B A) in one process: speedup is the median over rounds of the ratio of their times, and the row of "
            f"{self.scope.suite.baseline} is the baseline against itself, which shows the noise."
        )

    def _remarks(self) -> None:
        """What the track has to say of records: of all of them, and of a row."""
        if not any(record.log for row in self.ok for record in row.values()):
            return
        remarks = getattr(track_module(self.scope.suite.track), "remarks", None)
        for at, row in enumerate(self.ok if remarks else []):
            for record in row.values():
                general, own = remarks(record.log)  # type: ignore[misc]
                self.notes += [note for note in general if note not in self.notes]
                self.row_notes[at] += own

    def _explain_marks(self, correction: str) -> str:
        among = " of the rows with the same baseline row, or of those with none" if any(self.baselines) else ""
        text = (
            f"In bold (or *): the best{among}; †: not significantly different from it (paired test, {correction}, "
            "5% level)."
        )
        for role, what in (("reference", "a reference and not ranked"), ("control", "a null control")):
            names = dict.fromkeys(p.method for p, r in zip(self.scope.points, self.roles, strict=True) if r == role)
            text += f" {', '.join(names)}: {what}." if names else ""
        return text

    def _metric(self, label: str, name: str) -> None:
        sets = [self._scores(at, label) for at in range(len(self.ok))]
        present = {at: one for at, one in enumerate(sets) if one is not None}
        if not present:
            return
        first = next(iter(present.values()))
        partners = self._same_machine(present, name)
        metric = parse_expression(label).name
        margin, bounds = self.scope.suite.margins.get(metric), registry.get(metric, "metric").bounds
        found = evaluate(sets, partners, margin, self.scope.correction, bounds)
        marks = {} if self.within else self._marks(present)
        title = f"{name} {'↑' if first.higher_is_better else '↓'}"
        self._column(
            Column(label, title, _unit(first.unit), group=label),
            [_estimate(one, marks.get(at, "")) for at, one in enumerate(found)],
        )
        self._column(
            Column(f"{label} difference", "Δ ln" if first.summary in LOGARITHMIC else "Δ", group=label),
            [self._difference(at, one) for at, one in enumerate(found)],
        )
        for at, one in enumerate(found):
            if one.problem:
                self.row_notes[at].append(f"{name}: not compared: {one.problem}.")
            # A suite of one seed says so once, in its general notes.
            if one.difference is not None and one.difference.caveat and len(self.scope.seeds) > 1:
                self.row_notes[at].append(f"{name}: {one.difference.caveat}")
        signatures = [f"{name}: {one}" for one in dict.fromkeys(one.signature for one in present.values())]
        self.protocol += signatures
        self.notes += signatures
        self._sensitivity(name, found, present)

    def _sensitivity(self, name: str, found: Sequence[Compared], present: Mapping[int, ScoreSet]) -> None:
        """What the design can see, and what it sees where there is nothing."""
        differences = [one.difference for one in found if one.difference is not None]
        least = [f"{one.detectable:.2g}" for one in differences if isfinite(one.detectable)]
        if least:
            low, high = min(least, key=float), max(least, key=float)
            figures = low if low == high else f"{low} to {high}"
            self.notes.append(f"{name}: smallest Δ that would be found with 80% power: {figures}.")
        baselines = {at: one for at, one in present.items() if at in self.baselines}
        if baselines:
            control = null_control(baselines, self.scope.correction)
            self.notes.append(f"{name}: null control: {self._control(control)}")

    def _control(self, control: NullControl | None) -> str:
        if control is None:
            return "one seed, so that the baseline cannot be set against itself."
        if control.difference == 0:
            return f"every seed of {self.scope.suite.baseline} gives the same scores."
        widest = _bounded(Quantity(control.difference, control.low, control.high, signed=True))
        return (
            f"{self.scope.suite.baseline} against itself with other seeds (seed s with s + 1, same items): at most "
            f"{widest} ({self.labels[control.row]}); {control.apart} of {control.pairs} such pairs are told apart."
        )

    def _marks(self, present: Mapping[int, ScoreSet]) -> dict[int, str]:
        if depends_on_machine(next(iter(present.values())).unit):
            try:
                require_one_machine(machines(self.ledger, [one for row in self.ok for one in row.values()]))
            except BadInput:
                return {}
        found: dict[int, str] = {}
        for group in groups(self.partners, self.roles):
            found |= mark(present, group, self.scope.correction)
        return found

    def _same_machine(self, present: Mapping[int, ScoreSet], name: str) -> list[int | None]:
        """The partners of rows, without those that a metric of time cannot be compared with: another machine."""
        if not depends_on_machine(next(iter(present.values())).unit):
            return self.partners
        partners = list(self.partners)
        for at, partner in enumerate(self.partners):
            if partner is not None:
                both = [*self.ok[partner].values(), *self.ok[at].values()]
                try:
                    require_one_machine(machines(self.ledger, both))
                except BadInput as error:
                    partners[at] = None
                    self.row_notes[at].append(f"{name}: not compared: {error}.")
        return partners

    def _scores(self, at: int, label: str) -> ScoreSet | None:
        """The row's scores over the seeds that ended well."""
        scores = read_scores(self.ledger, self.ok[at], label)
        for seed, one in scores.items():
            self.tally.scores(f"{self.ok[at][seed].hash} {label}", one)
        if not scores:
            return None
        try:
            return stack(self.ledger, self.ok[at], scores)
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
        places = machines(self.ledger, records)
        if any(seconds):
            self.notes.append(
                f"Time: wall clock of a trial with its evaluation, the median over seeds.{_mixed(places)}"
            )
        if any(record.cost.get("peak_memory_bytes", {}).get("kind") == "proxy" for record in records):
            self.notes.append("Peak memory is an upper bound: of the process's whole life.")
        self.notes += list(dict.fromkeys(map(_machine, places)))

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


def _mixed(places: Sequence[Mapping[str, Any]]) -> str:
    """A warning where times of several machines stand in one column."""
    try:
        require_one_machine(places)
    except BadInput as error:
        return f" Not of one machine: {error}."
    return ""


def _unit(unit: str) -> str:
    """A unit as it stands beside a title; a plain number has none."""
    return "" if unit in ("", "1") else unit


def _mean(values: Sequence[float | None], unit: float) -> Quantity | None:
    known = [value for value in values if value is not None]
    return Quantity(fmean(known) / unit) if known else None


def _estimate(one: Compared, mark: str) -> Quantity | None:
    if one.interval is None:
        return None
    return _bounded(Quantity(one.interval.value, one.interval.low, one.interval.high, mark=mark))


def _quantity(one: Comparison) -> Quantity:
    test = Evidence(one.p, one.p if one.adjusted_p is None else one.adjusted_p, one.effect, one.effect_name)
    return _bounded(Quantity(one.difference, one.low, one.high, one.verdict, signed=True, test=test))


def _bounded(one: Quantity) -> Quantity:
    """Without an interval where it would be infinite: a single score says nothing of its own uncertainty."""
    known = one.low is not None and one.high is not None and isfinite(one.low) and isfinite(one.high)
    return one if known else replace(one, low=None, high=None)
