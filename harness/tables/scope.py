"""Which trials of a suite a table is of, and what their rows and metrics are called."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import registry
from harness.engine.ledger import Ledger
from harness.engine.plan import Point, Trial, suite_points
from harness.engine.record import OK, Record
from harness.engine.suite import SUITES, Problem, Suite
from harness.engine.yamlfile import shown
from harness.errors import BadInput
from harness.params import bind, format_call, parse_expression
from harness.scores import Scores
from harness.stats import ScoreSet
from harness.stats.significance import Correction
from harness.tables.hardware import depends_on_machine, require_one_machine

Taken = Mapping[int, Record]
"""Records of one row by seed."""


@dataclass(frozen=True)
class Scope:
    """Which trials of a suite a table is of. Only names are looked up: neither data nor model need be at hand.

    `options` are what the command line says of the protocol where it is not the suite's own.
    """

    suite: Suite
    problems: Sequence[Problem]
    points: Sequence[Point]
    seeds: Sequence[int]
    limit: int | None = None
    correction: Correction = "holm"
    options: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        suite: Suite,
        *,
        seeds: int | None = None,
        limit: int | None = None,
        model: str | None = None,
        correction: Correction = "holm",
    ) -> Scope:
        for name, value in (("seeds", seeds), ("limit", limit)):
            if value is not None and value < 1:
                raise BadInput(f"--{name} {value} is not accepted; it takes a number of at least 1")
        chosen = suite.seeds if seeds is None else tuple(range(seeds))
        given = {"seeds": seeds, "limit": limit, "model": model}
        options = [text for name, value in given.items() if value is not None for text in (f"--{name}", str(value))]
        return cls(suite, suite.problems(model), suite_points(suite), chosen, limit, correction, tuple(options))

    @property
    def command(self) -> str:
        """The command that computes what is missing of the table and prints it."""
        inside = self.suite.path.resolve().parent == SUITES.resolve()
        words = [self.suite.name if inside else shown(self.suite.path), *self.options]
        if self.correction == "holm":
            return shlex.join(["harness", "run", *words])
        return shlex.join(["harness", "table", *words, "--correction", self.correction])

    def title(self, at: int) -> str:
        """What a problem is called: its model, data set or environment, with its number where several share it."""
        names = [_name_of(problem.spec) for problem in self.problems]
        if not names[at]:
            return f"problem {at + 1}"
        return f"{names[at]} (problem {at + 1})" if names.count(names[at]) > 1 else names[at]

    def places(self) -> dict[str, tuple[int, int, int]]:
        """Where a record belongs, by the cell it fills: (problem, method point, seed)."""
        suite = self.suite
        return {
            Trial(suite.name, suite.track, point, problem.spec, {}, seed, (), self.limit).cell: (at, row, seed)
            for at, problem in enumerate(self.problems)
            for row, point in enumerate(self.points)
            for seed in self.seeds
        }


def collect(scope: Scope, ledger: Ledger) -> dict[tuple[int, int], dict[int, Record]]:
    """Records by (problem, method point), then by seed in rising order: the newest of every cell."""
    places = scope.places()
    found: dict[tuple[int, int], dict[int, Record]] = {}
    for record in ledger.records(suite=scope.suite.name):
        if record.cell in places:
            at, row, seed = places[record.cell]
            found.setdefault((at, row), {})[seed] = record
    return {place: dict(sorted(row.items())) for place, row in found.items()}


def _name_of(spec: Mapping[str, Any]) -> str:
    return next((str(spec[field]) for field in ("model", "dataset", "env") if isinstance(spec.get(field), str)), "")


def succeeded(taken: Taken) -> dict[int, Record]:
    """The records of a row that ended well."""
    return {seed: one for seed, one in taken.items() if one.status == OK}


def read_scores(ledger: Ledger, taken: Taken, label: str) -> dict[int, Scores]:
    """Per-item scores of one metric by seed, of those records that have it."""
    read = ledger.scores_of(taken.values(), label)
    return {seed: read[one.hash] for seed, one in taken.items() if one.hash in read}


def stack(ledger: Ledger, taken: Taken, scores: Mapping[int, Scores]) -> ScoreSet:
    """A row's scores over its seeds. Raises BadInput where seeds cannot be put together: other items, another
    protocol, or, for what depends on it, another machine."""
    if depends_on_machine(next(iter(scores.values())).unit):
        require_one_machine(machines(ledger, [taken[seed] for seed in scores]))
    return ScoreSet.stack(list(scores.values()), list(scores))


def machines(ledger: Ledger, records: Sequence[Record]) -> list[dict[str, Any]]:
    """The environments that the records were made in, each once."""
    found = (ledger.environment(one) for one in dict.fromkeys(record.environment for record in records))
    return [place for place in found if place]


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


def row_labels(points: Sequence[Point], track: str | None = None) -> list[str]:
    """Each method with its parameters that vary in this table or are not the default."""
    labels = []
    for point in points:
        siblings = [other.params for other in points if other.method == point.method]
        params = registry.get(point.method, track=track).params
        shown_params = {
            name: value
            for name, value in point.params.items()
            if value != params[name].default or any(other[name] != value for other in siblings)
        }
        labels.append(format_call(point.method, shown_params))
    return labels
