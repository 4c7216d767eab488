"""From a suite to its trials: every problem x seed x method point, each identified by what determines its result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness import data, registry
from harness.engine.pairing import matches
from harness.engine.suite import Problem, Suite
from harness.engine.tracks import track_module
from harness.errors import BadInput, nearest
from harness.params import Expression, bind, complete, format_call, parse_expression
from harness.registry import Entry

MAX_POINTS = 100_000
"""Method points of one suite; a grid beyond this is taken for a slip."""
FACTORS = {"lr": (0.1, 0.3, 1.0, 3.0, 10.0), "weight_decay": (0.0, 0.1, 1.0, 10.0)}
"""What tuning varies of every method that has it, as factors of its default."""


@dataclass(frozen=True)
class MetricCall:
    """A metric with complete parameters. `label` is the expression as the suite writes it; `data` maps a parameter
    that names a dataset to the hash of what is in it."""

    label: str
    name: str
    version: str
    params: dict[str, Any]
    data: dict[str, str]


@dataclass(frozen=True)
class Point:
    """A method with one point of its grid. `given` holds the parameters that the suite sets, `params` all of them.

    `fixed` names those that the suite sets to their default: tuning would vary them where nobody sets them.
    """

    method: str
    version: str
    given: dict[str, Any]
    params: dict[str, Any]
    fixed: tuple[str, ...] = ()

    def __str__(self) -> str:
        return format_call(self.method, self.given)


@dataclass(frozen=True)
class Trial:
    """One cell of a suite, with everything a worker needs to run it.

    `spec` is the problem as the suite gives it and `content` the hashes of what it names. `seconds` and `memory_gb`
    limit the run; they, like the environment, do not change what the result is, so they are not hashed.
    """

    suite: str
    track: str
    point: Point
    spec: dict[str, Any]
    content: dict[str, str]
    seed: int
    metrics: tuple[MetricCall, ...]
    limit: int | None = None
    seconds: float | None = None
    memory_gb: float | None = None

    @property
    def model(self) -> str | None:
        return self.spec.get("model")

    @property
    def label(self) -> str:
        """The trial in a line: method with its parameters, model and seed."""
        return " ".join(filter(None, (str(self.point), f"on {self.model}" if self.model else "", f"seed {self.seed}")))

    @cached_property
    def hash(self) -> str:
        """sha256 over method, its source version and parameters, problem and content, seed, limit and metrics."""
        metrics = sorted(([m.name, m.version, m.params, m.data] for m in self.metrics), key=canonical)
        # The model is known by its content: the same one under another name or path is the same trial.
        known = {"model"} & set(self.content)
        method = [self.point.method, self.point.version, self.point.params]
        if self.spec.get("tuning") and self.point.fixed:
            method.append(sorted(self.point.fixed))
        return digest(
            {
                "track": self.track,
                "method": method,
                "problem": {key: value for key, value in self.spec.items() if key not in known},
                "content": self.content,
                "seed": self.seed,
                "limit": self.limit,
                "metrics": metrics,
            }
        )

    @cached_property
    def cell(self) -> str:
        """The trial's place in its suite, whatever the versions of code and data: a newer result takes it over."""
        return digest([self.track, self.point.method, self.point.params, self.spec, self.seed, self.limit])

    def to_json(self) -> str:
        return canonical(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Trial:
        fields = json.loads(text)
        metrics = tuple(MetricCall(**call) for call in fields.pop("metrics"))
        point = Point(**fields.pop("point"))
        point = dataclasses.replace(point, fixed=tuple(point.fixed))
        return cls(point=point, metrics=metrics, **fields)


def canonical(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@dataclass(frozen=True)
class Cell:
    """A problem of the plan: its specification, its content hashes, its metrics."""

    spec: dict[str, Any]
    content: dict[str, str]
    metrics: tuple[MetricCall, ...]


@dataclass(frozen=True)
class Plan:
    """The trials of a suite, made one at a time when iterated: a plan of a million takes no more memory than one."""

    suite: Suite
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    points: tuple[Point, ...]
    limit: int | None = None

    def __len__(self) -> int:
        return len(self.cells) * len(self.seeds) * len(self.points)

    def __getitem__(self, at: int) -> Trial:
        """Seed by seed within a problem, so that a run that is stopped early leaves comparable rows."""
        if not 0 <= at < len(self):
            raise IndexError(at)
        rest, point = divmod(at, len(self.points))
        cell, seed = divmod(rest, len(self.seeds))
        problem, limits = self.cells[cell], self.suite.limits
        return Trial(
            self.suite.name, self.suite.track, self.points[point], problem.spec, problem.content, self.seeds[seed],
            problem.metrics, self.limit, limits.seconds, limits.memory_gb,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Trial]:
        return (self[at] for at in range(len(self)))


def plan_suite(
    suite: Suite,
    *,
    only: str | None = None,
    seeds: int | None = None,
    limit: int | None = None,
    model: str | None = None,
) -> Plan:
    """Look up every name in the suite and hash what its problems hold.

    `only` keeps the points that an expression matches, `seeds` the first seeds 0..N-1 in place of the suite's, `limit`
    the first items of every metric, and `model` takes the place of every model. Raises BadInput, with file and line,
    for whatever does not exist or does not fit.
    """
    for name, value in (("seeds", seeds), ("limit", limit)):
        if value is not None and value < 1:
            raise BadInput(f"--{name} {value} is not accepted; it takes a number of at least 1")
    points = suite_points(suite)
    _baseline(suite, points)
    if only is not None:
        points = _only(suite, points, only)
    cells = tuple(_cell(suite, problem) for problem in suite.problems(model))
    return Plan(suite, cells, suite.seeds if seeds is None else tuple(range(seeds)), points, limit)


@contextmanager
def _at(suite: Suite, *keys: Any) -> Iterator[None]:
    """Puts `file:line` before the message of a BadInput."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{suite.where(*keys)}: {error}") from error


def suite_points(suite: Suite) -> tuple[Point, ...]:
    """The method points of a suite, in its order, each once. Reads neither data nor model."""
    found: dict[str, Point] = {}
    for at, expression in enumerate(suite.fields.methods):
        with _at(suite, "methods", at):
            entry = _method(suite, expression)
            for given in bind(expression, entry.params, entry.name):
                params = complete(given, entry.params)
                fixed = tuple(
                    name for name in given if name in tunable(entry) and given[name] == entry.params[name].default
                )
                point = Point(entry.name, entry.version, given, params, fixed)
                # A point reached twice (a default spelled out) is one point.
                _require_same_tuning(suite, entry, found.setdefault(canonical([entry.name, params]), point), point)
                if len(found) > MAX_POINTS:
                    raise BadInput(f"{entry.name}: the grid has more than {MAX_POINTS} points; give fewer values")
    return tuple(found.values())


def tunable(entry: Entry) -> set[str]:
    """The parameters of a method that tuning varies where a suite does not set them."""
    return ({*FACTORS} & {*entry.params}) | {*entry.tune}


def _require_same_tuning(suite: Suite, entry: Entry, one: Point, other: Point) -> None:
    """BadInput where two expressions are one point but tuning would vary a parameter of one of them only, since what a
    suite sets is not tuned: their rows would bear one name."""
    differing = sorted((set(one.given) ^ set(other.given)) & tunable(entry))
    if differing and any(problem.spec.get("tuning") for problem in suite.problems()):
        raise BadInput(
            f"{other} has the parameters of {one} and would bear its name, though tuning varies {differing[0]} for "
            f"only one of them; give {differing[0]} another value than its default, or leave one of them out"
        )


def _method(suite: Suite, expression: Expression) -> Entry:
    entry = registry.resolve(expression, track=suite.track)
    if entry.track != suite.track:
        raise BadInput(f"method {entry.name} is of track {entry.track}; the suite is of track {suite.track}")
    return entry


def _baseline(suite: Suite, points: Sequence[Point]) -> None:
    """BadInput for a baseline that does not exist. Where trials are timed against it, it must be among the methods:
    its own row, the baseline against itself, is the null control."""
    expression, timed = suite.baseline, suite.track in registry.INTERLEAVED
    if expression is None:
        if timed:
            raise BadInput(
                f"{suite.where()}: field baseline is missing; trials of track {suite.track} are timed beside it"
            )
        return
    with _at(suite, "baseline"):
        entry = _method(suite, expression)
        given = list(bind(expression, entry.params, entry.name))
        rows = [str(point) for point in points if matches((point.method, point.params), expression)]
        if timed and not (len(given) == len(rows) == 1):
            known = nearest(str(expression), map(str, points))
            raise BadInput(f"{expression} is {len(rows)} of the suite's methods; it must be exactly one; {known}")


def _only(suite: Suite, points: tuple[Point, ...], text: str) -> tuple[Point, ...]:
    try:
        expression = parse_expression(text)
        entry = registry.resolve(expression, track=suite.track)
        wanted = list(bind(expression, entry.params, entry.name))
    except BadInput as error:
        raise BadInput(f"--only: {error}") from None
    kept = tuple(
        point
        for point in points
        if point.method == entry.name and any(given.items() <= point.params.items() for given in wanted)
    )
    if not kept:
        methods = nearest("", dict.fromkeys(point.method for point in points))
        raise BadInput(f"--only {text}: no trial of suite {suite.name} matches; {methods}")
    return kept


def _cell(suite: Suite, problem: Problem) -> Cell:
    calls: dict[str, MetricCall] = {}
    for at, expression in enumerate(problem.metrics):
        with _at(suite, *problem.metric_keys, at):
            entry = registry.resolve(expression, "metric")
            for given in bind(expression, entry.params, entry.name):
                call = _call(entry, given)
                calls.setdefault(canonical([call.name, call.params]), call)
    with _at(suite, *problem.keys):
        content = track_module(suite.track).describe(problem.spec)
    return Cell(problem.spec, content, tuple(calls.values()))


def _call(entry: Entry, given: Mapping[str, Any]) -> MetricCall:
    params = complete(given, entry.params)
    hashes = {
        name: data.content_hash(params[name], params.get("split"))
        for name, param in entry.params.items()
        if param.names_data and params[name] is not None
    }
    return MetricCall(format_call(entry.name, given), entry.name, entry.version, params, hashes)
