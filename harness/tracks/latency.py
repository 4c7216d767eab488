"""The latency track: a layer's shape in, a layer stored in some format out; how fast that runs is what is compared.

    baseline: floating                   # of the suite: timed beside the method, in the same rounds
    problem:
      model: 11008x4096                  # one product; or a shape (llama-7b) or a model by name: the layers of a block
      measure: product                   # or token: decoding with the whole language model
      rows: 1                            # of the input; prompts decoded at once
      threads: 1
      device: cpu
      rounds: 10
      layers: 2                          # measure token: so many blocks; all of them where it is left out
      prompt: 16                         # tokens before the first one
      tokens: 8                          # after the first one, in each turn

A trial times its method and the baseline in turns (A B B A) in one process, with weights that are random: speed does
not depend on their values. Its times belong to the machine, which is part of its content and of every signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput, TrialFailed, nearest

if TYPE_CHECKING:
    import torch

    from harness.check import Check
    from harness.metrics.subject import Subject
    from harness.registry import Entry
    from harness.solution import Solution

FIELDS: dict[str, Any] = {
    "model": None,
    "measure": "product",
    "rows": 1,
    "threads": 1,
    "device": "cpu",
    "rounds": 10,
    "layers": None,
    "prompt": 16,
    "tokens": 8,
    "baseline": None,
}
MEASURES = ("product", "token")
MOST = 1 << 16
"""Of rows, rounds, prompt and tokens."""
ALONE = True
"""Trials run one at a time, or they would time each other."""


@dataclass(frozen=True)
class LayerShape:
    """The layer that a method is asked for: `shape` (outputs, inputs). Random numbers come from `generator`."""

    shape: tuple[int, int]
    generator: torch.Generator


@dataclass(kw_only=True)
class LatencyProblem:
    """What is timed, and the baseline that it is timed against, as (outputs, inputs) -> layer."""

    fields: dict[str, Any]
    generator: torch.Generator
    signature: str
    baseline: Callable[[int, int], Any]


def describe(spec: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the model's shape and of the machine with its kernels. Raises BadInput for a field that is unknown or
    wrong, for more threads than there are cores, and for a device that is not there."""
    from harness.engine.plan import digest
    from harness.latency import machine, shapes

    fields = _checked(spec)
    content = {"machine": digest(machine.identity(fields["device"]))}
    if shapes.product_shape(fields["model"]) is None:
        content["model"] = digest(shapes.raw_config(fields["model"]))
    return content


def _checked(spec: Mapping[str, Any]) -> dict[str, Any]:
    from harness.engine.environment import cores
    from harness.latency import machine, shapes
    from harness.tasks.task import known_fields

    fields = known_fields(dict(spec), FIELDS, "problem")
    if not isinstance(fields["model"], str):
        raise BadInput(f"problem: model={fields['model']!r} is not accepted; it takes 4096x4096, or a model's name")
    if fields["measure"] not in MEASURES:
        raise BadInput(f"problem: measure={fields['measure']!r} is not accepted; {nearest('', MEASURES)}")
    for name in ("rows", "threads", "rounds", "prompt", "tokens", "layers"):
        _number(fields[name], name, optional=name == "layers")
    if fields["threads"] > cores():
        raise BadInput(
            f"problem: threads={fields['threads']} is not accepted; this process may use {cores()} processor cores"
        )
    machine.require_device(fields["device"])
    product = shapes.product_shape(fields["model"])
    if product is not None and fields["measure"] == "token":
        raise BadInput(f"problem: model={fields['model']!r} is one product; measure: token takes a language model")
    if fields["baseline"] is not None:
        _baseline(fields["baseline"])
    return fields


def _number(value: Any, name: str, *, optional: bool = False) -> None:
    if not (optional and value is None) and (type(value) is not int or not 1 <= value <= MOST):
        raise BadInput(f"problem: {name}={value!r} is not accepted; it takes a number from 1 to {MOST}")


def _baseline(text: str) -> tuple[Entry, dict[str, Any]]:
    """The one point that the suite's baseline names."""
    from harness import registry
    from harness.params import bind, complete, parse_expression

    entry = registry.get((expression := parse_expression(text)).name, track="latency")
    points = [complete(given, entry.params) for given in bind(expression, entry.params, entry.name)]
    if len(points) != 1:
        raise BadInput(f"baseline: {text} names {len(points)} points; a trial is timed against one")
    return entry, points[0]


def build(spec: Mapping[str, Any], *, seed: int) -> LatencyProblem:
    """What is to be timed; every random weight is drawn from `seed`."""
    import torch

    from harness.latency import machine

    fields = _checked(spec)
    if fields["baseline"] is None:
        raise BadInput("problem: there is no baseline; a suite of the latency track names one")
    entry, params = _baseline(fields["baseline"])
    generator = torch.Generator().manual_seed(seed)
    told = [fields["model"], fields["measure"]]
    shown = ["rows", "threads", "device", *(("layers", "prompt", "tokens") if fields["measure"] == "token" else ())]
    told += [f"{name}:{fields[name] or 'all'}" for name in shown]
    told += [f"rounds:{fields['rounds']}", f"baseline:{fields['baseline']}", f"on:{machine.title(fields['device'])}"]
    return LatencyProblem(
        fields=fields, generator=generator, signature="|".join(told), baseline=maker(entry, params, generator)
    )


def maker(entry: Entry, params: Mapping[str, Any], generator: torch.Generator) -> Callable[[int, int], Any]:
    """(outputs, inputs) -> the method's layer. Raises TrialFailed for one that is none, or of another shape."""
    from harness.packed import CompressedLinear

    def make(m: int, n: int) -> Any:
        layer = entry(LayerShape((m, n), generator), **params)
        if not isinstance(layer, CompressedLinear):
            raise TrialFailed(f"the method gave a {type(layer).__name__}; it takes a CompressedLinear")
        if (layer.out_features, layer.in_features) != (m, n):
            raise TrialFailed(f"the method gave a layer of {layer.out_features} x {layer.in_features}, not {m} x {n}")
        return layer

    return make


def solve(entry: Entry, problem: LatencyProblem, params: Mapping[str, Any]) -> Solution:
    """The method's layers and what they take. The log has all rounds, the kernels, the machine's ceilings just then,
    the processors that were used, and the energy of a turn where it can be read."""
    from harness.latency.measure import measure

    return measure(problem, maker(entry, params, problem.generator))


def subject(problem: LatencyProblem, solution: Solution) -> Subject:
    from harness.metrics.subject import Subject

    return Subject(None, "latency", extra=solution.extra)  # type: ignore[arg-type]


def size(problem: LatencyProblem, solution: Solution) -> dict[str, Any]:
    return dict(solution.extra["size"])


def sample() -> dict[str, Any]:
    """A problem of a moment, for tests."""
    return {"model": "96x128", "rounds": 6, "baseline": "floating"}


def checks() -> tuple[Check, ...]:
    """The contract of a stored format."""
    from harness.latency.checks import CHECKS

    return CHECKS


def remarks(log: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(notes on the whole table, notes on a row) from a trial's log."""
    from harness.latency.measure import remarks as found

    return found(log)


def preamble(specs: list[Mapping[str, Any]]) -> list[str]:
    """The machine's ceilings, measured now, in lines: what is shown before a run."""
    from harness.latency import ceilings
    from harness.latency.threads import pinned

    lines = []
    for device, threads in dict.fromkeys((f["device"], f["threads"]) for f in map(_checked, specs)):
        with pinned(threads):
            lines.append(str(ceilings.measured(device, threads)))
    return lines
