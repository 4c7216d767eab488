"""Suite files: what is compared, on what, and how. Read here; checked against the registry when they are planned.

    suite: ptq-lm
    title: Post-training quantization of a small language model
    track: compress
    scale: small                     # or full
    models: [tiny-llama]             # every model with the one problem below; or `problems:`, a list of
    problem:                         #   {model: ..., metrics: [...], and the fields of the track's problem}
      calibration: {dataset: open-english-text, split: train, samples: 128, length: 512}
    methods: [dense, "rtn(bits=[2, 3, 4], clip=[minmax, mse])", "gptq(bits=[2, 3, 4])"]
    metrics: ["perplexity(dataset=wikitext2)"]
    seeds: 3                         # or a list
    baseline: rtn(clip=minmax)
    margins: {perplexity: 0.05}      # differences below this do not matter, in the metric's unit
    limits: {seconds: 900, memory_gb: 6}

Methods, metrics and the baseline are expressions, `name(parameter=value)`; a list of values makes a grid of methods.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from harness.engine.yamlfile import Document, Keys, read_yaml, shown
from harness.errors import BadInput, nearest
from harness.params import Expression, parse_expression
from harness.registry import INTERLEAVED, TRACKS

SUITES = Path(__file__).parents[2] / "suites"
"""The folder of the named suites."""


def _expression(value: Any) -> Expression:
    if not isinstance(value, str):
        raise ValueError("it takes an expression, as name or name(parameter=value)")
    try:
        return parse_expression(value)
    except BadInput as error:
        raise ValueError(str(error)) from None


def _seeds(value: Any) -> tuple[int, ...]:
    if type(value) is int and 1 <= value <= 10_000:
        return tuple(range(value))
    whole = isinstance(value, list) and value and all(type(seed) is int and 0 <= seed < 2**32 for seed in value)
    if whole and len(set(value)) == len(value):
        return tuple(value)
    raise ValueError("it takes a number of seeds from 1 to 10000, or a list of different integers of at least 0")


def _track(value: Any) -> str:
    if value not in TRACKS:
        raise ValueError(f"unknown track; {nearest(str(value), TRACKS)}")
    return value


Call = Annotated[Expression, BeforeValidator(_expression)]
Words = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
Calls = Annotated[list[Call], Field(min_length=1)]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)


class Limits(_Strict):
    """What one trial may use; None is no limit."""

    seconds: AboveZero | None = None
    memory_gb: AboveZero | None = None


class ProblemEntry(_Strict):
    """One problem of a suite: its model, its metrics where they are not the suite's, and the track's own fields."""

    model_config = ConfigDict(extra="allow")

    model: str | None = Field(None, min_length=1)
    metrics: Calls | None = None


class Fields(_Strict):
    """The fields of a suite file."""

    suite: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str = Field(min_length=1)
    track: Annotated[str, BeforeValidator(_track)]
    scale: Literal["small", "full"] = "small"
    models: Words | None = None
    problem: dict[str, Any] = {}
    problems: Annotated[list[ProblemEntry], Field(min_length=1)] | None = None
    methods: Calls
    metrics: list[Call] = []
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds)] = (0,)
    baseline: Call | None = None
    margins: dict[str, AboveZero] = {}
    limits: Limits = Limits()


@dataclass(frozen=True)
class Problem:
    """One problem of a suite: the track's specification, the metrics taken on it, and where the file says so."""

    spec: dict[str, Any]
    metrics: tuple[Expression, ...]
    keys: Keys
    metric_keys: Keys


@dataclass(frozen=True)
class Suite:
    """A suite file that was read and is well-formed; names in it are looked up when it is planned."""

    fields: Fields
    document: Document

    @property
    def name(self) -> str:
        return self.fields.suite

    @property
    def title(self) -> str:
        return self.fields.title

    @property
    def track(self) -> str:
        return self.fields.track

    @property
    def path(self) -> Path:
        return self.document.path

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.fields.seeds

    @property
    def baseline(self) -> Expression | None:
        return self.fields.baseline

    @property
    def margins(self) -> dict[str, float]:
        return dict(self.fields.margins)

    @property
    def limits(self) -> Limits:
        return self.fields.limits

    def where(self, *keys: Any) -> str:
        """`file:line` of a field, for messages."""
        return self.document.where(*keys)

    def problems(self, model: str | None = None) -> list[Problem]:
        """The problems of the suite; `model` takes the place of every model named in it. Where trials time the baseline
        beside their method it is a field of every problem."""
        shared = tuple(self.fields.metrics)
        if self.fields.problems is None:
            found = [
                Problem({"model": name, **self.fields.problem}, shared, ("models", at), ("metrics",))
                for at, name in enumerate(self.fields.models or [])
            ] or [Problem(dict(self.fields.problem), shared, ("problem",), ("metrics",))]
        else:
            found = [_problem(entry, at, shared) for at, entry in enumerate(self.fields.problems)]
        if self.track in INTERLEAVED and self.baseline is not None:
            beside = {"baseline": str(self.baseline)}
            found = [Problem({**p.spec, **beside}, p.metrics, p.keys, p.metric_keys) for p in found]
        if model is None:
            return found
        replaced = [
            Problem({**p.spec, "model": model}, p.metrics, p.keys, p.metric_keys) for p in found if "model" in p.spec
        ]
        if not replaced:
            raise BadInput(f"suite {self.name} names no model; --model has nothing to replace in it")
        return [p for at, p in enumerate(replaced) if not any(p.spec == q.spec for q in replaced[:at])]


def _problem(entry: ProblemEntry, at: int, shared: tuple[Expression, ...]) -> Problem:
    spec = {**({"model": entry.model} if entry.model else {}), **(entry.model_extra or {})}
    if entry.metrics is None:
        return Problem(spec, shared, ("problems", at), ("metrics",))
    return Problem(spec, tuple(entry.metrics), ("problems", at), ("problems", at, "metrics"))


def names() -> list[str]:
    """The named suites, by name."""
    return sorted(path.stem for path in SUITES.glob("*.yaml") if _is_suite(path))


def _is_suite(path: Path) -> bool:
    with path.open(encoding="utf-8") as lines:
        return any(line.startswith("suite:") for line in lines)


def find(name: str | Path) -> Path:
    """The file of a suite, by its name or its path."""
    text = str(name)
    if isinstance(name, Path) or text.endswith((".yaml", ".yml")) or "/" in text:
        return Path(name)
    if text not in names():
        raise BadInput(f"unknown suite {text!r}; {nearest(text, names())} (or give the path of a suite file)")
    return SUITES / f"{text}.yaml"


def load_suite(name: str | Path) -> Suite:
    """Read a suite by name or path. Raises BadInput with `file:line: field: ...` for whatever is wrong with it."""
    path = find(name)
    document = read_yaml(path)
    if not isinstance(document.data, dict) or "suite" not in document.data:
        raise BadInput(f"{shown(path)}: is not a suite file; a suite starts with `suite: NAME`")
    try:
        fields = Fields.model_validate(document.data)
    except ValidationError as error:
        raise BadInput(_explain(error, document)) from None
    suite = Suite(fields, document)
    _check(suite)
    return suite


def _check(suite: Suite) -> None:
    """What one field's type cannot say."""
    fields = suite.fields
    if fields.problems is not None and (fields.models or fields.problem):
        raise BadInput(f"{suite.where('problems')}: problems: takes the place of models and problem; give one form")
    for at, problem in enumerate(suite.problems()):
        if not problem.metrics:
            raise BadInput(f"{suite.where(*problem.keys)}: problem {at + 1} has no metrics; add a list `metrics`")
    known = {call.name for problem in suite.problems() for call in problem.metrics}
    for metric in fields.margins:
        if metric not in known:
            where = suite.where("margins", metric)
            raise BadInput(f"{where}: margins.{metric}: the suite has no such metric; {nearest(metric, known)}")


def _explain(error: ValidationError, document: Document) -> str:
    """One line for the first thing pydantic found: file, line, field, value, what would be accepted."""
    # A misspelt field is also a missing one; naming the misspelling helps more.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    keys = first["loc"]
    field = re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, keys)))
    where = document.where(*keys)
    if first["type"] == "missing":
        return f"{where}: field {field} is missing"
    if first["type"] == "extra_forbidden":
        known = Limits.model_fields if keys[0] == "limits" else Fields.model_fields
        return f"{where}: unknown field {field}; {nearest(str(keys[-1]), known)}"
    value = repr(first["input"])
    value = value if len(value) <= 60 else f"{value[:57]}..."
    if first["type"] == "value_error":
        reason = str(first["ctx"]["error"])
        if reason.startswith("expression"):
            return f"{where}: {field}: {reason}"
    else:
        reason = re.sub(r"^\w+ should", "it should", first["msg"])
        reason = re.sub(r" after validation.*|valid (?=dictionary)| or instance of \w+", "", reason)
        reason = reason.replace("dictionary", "mapping of fields")
    return f"{where}: {field}: {value} is not accepted; {reason}"
