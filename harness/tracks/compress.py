"""What the engine knows of the compress track: how its problems are described, built, solved and measured.

A problem's specification is `{model: NAME, calibration: {dataset: NAME, split: NAME, samples: 128, length: 512}}`.
`split` is the data set's usual one unless given; `length` is in tokens and for text only. Without `calibration` only
methods that read no data can run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.check import Check
    from harness.compress.problem import Batch, CompressProblem
    from harness.metrics.subject import Subject
    from harness.registry import Entry
    from harness.solution import Solution

CALIBRATION: dict[str, Any] = {"dataset": None, "split": None, "samples": 128, "length": 512}
"""Fields of `calibration` and what they are when left out."""


def describe(spec: Mapping[str, Any]) -> dict[str, str]:
    """Content hashes of the model and the calibration data. Raises BadInput for a field that is unknown, wrong or
    names something that is not there."""
    from harness import data
    from harness.models import open_model

    _known(spec, ("model", "calibration"), "problem")
    if not isinstance(spec.get("model"), str):
        raise BadInput(f"problem: model={spec.get('model')!r} is not accepted; it takes the name of a model")
    hashes = {"model": open_model(spec["model"]).hash}
    if fields := _calibration(spec):
        hashes["calibration"] = data.content_hash(fields["dataset"], fields["split"])
    return hashes


def build(spec: Mapping[str, Any], *, seed: int) -> CompressProblem:
    """The model, read into memory, and calibration data drawn from `seed`. Raises BadInput as `describe` does, and for
    data that the model cannot take."""
    import torch

    from harness.compress.calibration import draw
    from harness.compress.problem import CompressProblem
    from harness.models import open_model

    generator = torch.Generator().manual_seed(seed)
    fields = _calibration(spec)
    handle = open_model(spec["model"])
    calibration = draw(handle, **fields, generator=generator) if fields else []
    loss = {"causal-lm": next_token_loss, "vision": cross_entropy}.get(handle.kind)
    return CompressProblem(handle, handle.load(), calibration, generator, loss=loss)


def solve(entry: Entry, problem: CompressProblem, params: Mapping[str, Any]) -> Solution:
    """What the method makes of the problem; a method of one layer is driven block by block."""
    from harness.compress.walk import compress_layers, refuse_nonfinite

    if entry.input_type == "LayerProblem":
        return compress_layers(problem, lambda layer: entry(layer, **params))
    refuse_nonfinite(problem.model)
    return entry(problem, **params)


def subject(problem: CompressProblem, solution: Solution) -> Subject:
    """The checkpoint, read again, with the solution's stored tensors in it and nothing else that a method may have
    changed."""
    from harness.metrics.subject import Subject
    from harness.packed import dense_weights

    model = dense_weights(problem.handle.load(), solution.packed, solution.changed)
    return Subject.of(problem.handle, model)


def size(problem: CompressProblem, solution: Solution) -> dict[str, Any]:
    """The stored size, see `harness.packed.model_size`."""
    from harness.packed import model_size

    return model_size(problem.model, solution.packed, solution.changed, dtype=problem.handle.dtype)


def next_token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean negative log-likelihood of every token after the first, in nats."""
    return model(**batch, labels=batch["input_ids"], use_cache=False).loss


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean negative log-likelihood of the labels, in nats."""
    from torch.nn import functional

    output = model(pixel_values=batch["pixel_values"])
    return functional.cross_entropy(getattr(output, "logits", output), batch["labels"])


def _calibration(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `calibration`, complete; none without it."""
    given = spec.get("calibration")
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise BadInput(f"problem: calibration={given!r} is not accepted; it takes the fields {', '.join(CALIBRATION)}")
    _known(given, CALIBRATION, "calibration")
    fields = {**CALIBRATION, **given}
    for name in ("samples", "length"):
        if type(fields[name]) is not int or fields[name] < 1:
            raise BadInput(f"calibration: {name}={fields[name]!r} is not accepted; it takes an integer of at least 1")
    if not isinstance(fields["dataset"], str) or not isinstance(fields["split"], str | None):
        name = "split" if isinstance(fields["dataset"], str) else "dataset"
        raise BadInput(f"calibration: {name}={fields[name]!r} is not accepted; it takes the name of a {name}")
    return fields


def _known(given: Mapping[str, Any], fields: Any, owner: str) -> None:
    for name in given:
        if name not in fields:
            raise BadInput(f"{owner}: unknown field {name!r}; {nearest(str(name), fields)}")


def checks() -> tuple[Check, ...]:
    """The contract of a compression method."""
    from harness.compress.checks import CHECKS

    return CHECKS
