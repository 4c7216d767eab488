"""What a report is made of: a suite's tables, the records behind every number, and what older code had come to."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.engine.ledger import Ledger
from harness.engine.plan import Point
from harness.engine.record import Record
from harness.engine.suite import Suite
from harness.errors import BadInput
from harness.params import parse_expression
from harness.scores import LOGARITHMIC
from harness.stats import ScoreSet
from harness.tables import Table
from harness.tables.build import tabulate
from harness.tables.scope import Scope, Taken, collect, metric_labels, read_scores, short_names, stack, succeeded

Place = tuple[int, int]
"""A row of a suite: (problem, row of its table)."""


@dataclass(frozen=True)
class Section:
    """One suite of a report: `taken` are the records that its tables rest on, `older` those that other versions of the
    code left for the same cells, oldest first."""

    scope: Scope
    tables: Sequence[Table]
    taken: Mapping[Place, Taken]
    older: Mapping[Place, Sequence[Record]]

    @property
    def suite(self) -> Suite:
        return self.scope.suite

    def succeeded(self, problem: int, row: int) -> Taken:
        """The row's records that ended well."""
        return succeeded(self.taken.get((problem, row), {}))

    def records(self, problem: int, row: int) -> list[Record]:
        """Those records, by seed."""
        return list(self.succeeded(problem, row).values())

    def complete(self, problem: int, row: int) -> bool:
        """Whether every planned seed of the row ended well."""
        return len(self.records(problem, row)) == len(self.scope.seeds)

    @cached_property
    def metrics(self) -> list[dict[str, str]]:
        """The metrics of each problem: their short names by label, in the suite's order."""
        return [short_names(metric_labels(problem)) for problem in self.scope.problems]

    def about(self, problem: int, label: str) -> dict[str, Any]:
        """What the records say of a metric: its unit, direction, summary and signature. Empty where none has it."""
        rows = (self.records(problem, row) for row in range(len(self.scope.points)))
        return next((one.metrics[label] for row in rows for one in row if label in one.metrics), {})

    def first_metric(self, problem: int) -> str | None:
        """The label of the first of the problem's metrics that a record has."""
        return next((label for label in self.metrics[problem] if self.about(problem, label)), None)

    def margin(self, problem: int, label: str) -> float | None:
        """The suite's margin where it is one of the difference as shown: not for a perplexity, shown as a logarithm."""
        if self.about(problem, label).get("summary") in LOGARITHMIC:
            return None
        return self.suite.margins.get(parse_expression(label).name)

    def command(self, point: Point) -> str:
        """The command line that computes a row anew."""
        return f"{self.scope.command} {shlex.join(['--only', str(point), '--fresh'])}"

    def scores(self, problem: int, row: int, label: str, ledger: Ledger) -> ScoreSet | None:
        """The row's per-item scores over its seeds; None where there are none or they cannot be put together, which
        the table's notes explain."""
        taken = self.succeeded(problem, row)
        read = read_scores(ledger, taken, label)
        try:
            return stack(ledger, taken, read) if read else None
        except BadInput:
            return None


def gather(suite: Suite, ledger: Ledger, **protocol: Any) -> Section:
    """Everything the ledger has on a suite; `protocol` as for `Scope.of`. Raises BadInput where it has nothing."""
    scope = Scope.of(suite, **protocol)
    taken = collect(scope, ledger)
    if not taken:
        raise BadInput(f"ledger {ledger.name}: has no record of suite {suite.name}; `{scope.command}` makes them")
    return Section(scope, tabulate(scope, ledger), taken, _older(scope, taken, ledger))


def _older(scope: Scope, taken: Mapping[Place, Taken], ledger: Ledger) -> dict[Place, list[Record]]:
    """Records of the same cells that a newer one took over."""
    places = scope.places()
    current = {record.hash for row in taken.values() for record in row.values()}
    found: dict[Place, list[Record]] = {}
    models = dict.fromkeys(problem.spec.get("model") for problem in scope.problems)
    for method in dict.fromkeys(point.method for point in scope.points):
        for model in models:
            for record in ledger.records(method=method, model=model):
                if record.cell in places and record.hash not in current:
                    problem, row, _ = places[record.cell]
                    found.setdefault((problem, row), []).append(record)
    return {place: sorted(records, key=lambda one: one.created) for place, records in found.items()}
