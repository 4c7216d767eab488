"""The adapt track: a pretrained model and a new task in; the adapted model, and what is stored of the change, out.

models: [tiny-llama]                  # a checkpoint, or a small model, which is then first trained on `source`
problem:
  task: {dataset: tiny-shakespeare, train: 400}       # the target, which is to be learned
  source: {dataset: open-english-text, train: 400}    # what the model can do, and is not to forget
  pretrain: {steps: 300, lr: 0.002}                   # for a small model: fields of harness.parts.prepare.RECIPE
  trainable: 0.05                     # part of the numbers in the body's layers that a method is granted to train
  budget: {steps: 100, batch: 8}
  evaluations: 20                     # times that target and source are looked at along the training, at no cost
  tuning: 4                           # tries of learning rate and weight decay, chosen on the target's dev split

A method that has a size (a rank, a block, a density) takes the one whose count of trainable numbers is nearest to what
is granted, and its record says what was left over. The subject has the tasks `target` and `source`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.errors import BadInput
from harness.models.inside import matrix_shape, weight_of
from harness.problem import Problem
from harness.tasks import Task, describe_task, evaluate, make_task, task_kind
from harness.tracks import training

if TYPE_CHECKING:
    from harness.check import Check
    from harness.metrics.subject import Subject
    from harness.registry import Entry
    from harness.solution import Solution

FIELDS = ("model", "task", "source", "pretrain", "trainable", "evaluations")
TARGET, SOURCE = "target", "source"
TRAINABLE = 0.05
EVALUATIONS = 20
"""Times that a training is looked at, so that forgetting can be read where methods do equally well on the target."""
PRETRAIN = {"steps": 300, "batch": 64, "lr": 2e-3}


@dataclass(kw_only=True)
class AdaptProblem(Problem):
    """A pretrained model, the task that it is to learn, and the one that it is not to forget.

    `layers` names the linear layers and convolutions of the model's body, which adapters and sparse updates are for;
    `granted` is how many numbers a method may train. The metrics read `before` (per-item scores of the pretrained
    model on the source's test data) and `path` (the same along the training, with the target's dev loss).
    """

    model: nn.Module
    source: Task
    layers: tuple[str, ...]
    granted: int
    before: dict[str, list[float]] = field(default_factory=dict)
    path: list[dict[str, Any]] = field(default_factory=list)

    def shapes(self) -> dict[str, tuple[int, int]]:
        """By layer of the body, its weight's shape as a matrix."""
        return {name: matrix_shape(weight_of(self.model, name)) for name in self.layers}

    def look(self, model: nn.Module) -> dict[str, list[float]]:
        """Per-item scores on the source's test data, which no method sees."""
        scores = evaluate(self.source, model, self.source.test)
        return {f"source_{name}": values.tolist() for name, values in scores.items()}


def describe(spec: Mapping[str, Any]) -> dict[str, str]:
    """Content hashes of the model and the data. Raises BadInput for a field that is unknown or wrong."""
    training.known(spec, FIELDS, required=("model", "task", "source"))
    hashes = training.describe_trained(spec, {"task": spec["task"], "source": spec["source"]})
    if task_kind(spec["task"]) != task_kind(spec["source"]):
        kinds = f"{task_kind(spec['task'])} and {task_kind(spec['source'])}"
        raise BadInput(f"problem: task and source are of kinds {kinds}; give two tasks of one kind")
    _pretraining(spec)
    part = spec.get("trainable", TRAINABLE)
    if isinstance(part, bool) or not isinstance(part, int | float) or not 0 < part <= 1:
        raise BadInput(f"problem: trainable={part!r} is not accepted; it takes a part above 0, at most 1")
    times = spec.get("evaluations", EVALUATIONS)
    if type(times) is not int or times < 1:
        raise BadInput(f"problem: evaluations={times!r} is not accepted; it takes a number of at least 1")
    return hashes


def _pretraining(spec: Mapping[str, Any]) -> dict[str, Any]:
    from harness.models import small
    from harness.parts import prepare

    if "pretrain" in spec and not small.is_small(spec["model"]):
        raise BadInput(f"problem: pretrain is for a small model; {spec['model']} is a checkpoint, leave it out")
    return prepare.recipe(spec.get("pretrain", {}), "pretrain", **PRETRAIN)


def build(spec: Mapping[str, Any], *, seed: int) -> AdaptProblem:
    """The tasks, and the model as it was pretrained; which samples train, and a small model's training, are drawn from
    `seed`."""
    from harness.models.inside import body_layers

    handle = training.handle_of(spec["model"])
    generator = torch.Generator().manual_seed(seed)
    source = make_task(spec["source"], generator, model=handle)
    task = make_task(spec["task"], generator, model=handle)
    if task.classes != source.classes or task.train.inputs[0].shape != source.train.inputs[0].shape:
        shapes = [(tuple(one.train.inputs[0].shape), one.classes) for one in (task, source)]
        raise BadInput(f"problem: task and source have inputs and classes {shapes[0]} and {shapes[1]}; they must agree")
    model = _pretrained(spec, source, seed)
    budget = training.granted(spec)
    budget.watch(model)
    layers = tuple(body_layers(model))
    total = sum(weight_of(model, name).numel() for name in layers)
    problem = AdaptProblem(
        task=task,
        generator=generator,
        budget=budget,
        evaluations=spec.get("evaluations", EVALUATIONS),
        model=model,
        source=source,
        layers=layers,
        granted=max(1, round(spec.get("trainable", TRAINABLE) * total)),
    )
    problem.along = problem.look
    return problem


def _pretrained(spec: Mapping[str, Any], source: Task, seed: int) -> nn.Module:
    """A checkpoint, or a small model trained on the source once for all methods."""
    from harness.cache import cached
    from harness.models import small
    from harness.parts import prepare

    generator = torch.Generator().manual_seed(seed)
    if not small.is_small(spec["model"]):
        return training.make_model(spec["model"], source, generator, pretrained=True)
    model = training.make_model(spec["model"], source, generator, pretrained=False)
    recipe = _pretraining(spec)
    key = {
        "for": "adapt", "model": spec["model"], "recipe": recipe, "seed": seed,
        "source": [dict(spec["source"]), describe_task(spec["source"])],
    }  # fmt: skip
    model.load_state_dict(cached(key, lambda: prepare.train(model, source, recipe, seed).state_dict()))
    return model


def solve(entry: Entry, problem: AdaptProblem, params: Mapping[str, Any]) -> Solution:
    """The method's solution; what it did to the source along the way stays with the problem."""
    with problem.budget.free():
        start: dict[str, Any] = {"step": 0, "dev_loss": _dev_loss(problem), **problem.look(problem.model)}
    solution = entry(problem, **params)
    curve = solution.log.get("curve", [])
    problem.before = {name: start[name] for name in start if name.startswith("source_")}
    problem.path = [start, *(row for row in curve if "dev_loss" in row)]
    solution.log["curve"] = [_summed(row) for row in [start, *curve]]
    return solution


def _dev_loss(problem: AdaptProblem) -> float:
    return float(evaluate(problem.task, problem.model, problem.task.dev)["loss"].mean())


def _summed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the curve as a record keeps it: means instead of scores by item."""
    return {key: sum(value) / len(value) if isinstance(value, list) else value for key, value in row.items()}


def develop(problem: AdaptProblem, solution: Solution) -> float:
    """Mean loss on the target's development split."""
    return training.dev_loss(problem, problem.task, solution)


def subject(problem: AdaptProblem, solution: Solution) -> Subject:
    found = training.subject_of(problem, solution, {TARGET: problem.task, SOURCE: problem.source})
    found.extra = {"before": problem.before, "path": problem.path}
    return found


def size(problem: AdaptProblem, solution: Solution) -> dict[str, Any]:
    """Bytes of what is stored beside the pretrained model; of the whole model, for a method that changes all of it."""
    return training.trained_size(solution)


def sample() -> dict[str, Any]:
    """A problem of a second, for the contract's checks."""
    return {
        "model": "mlp(width=32, depth=2)",
        "task": {"dataset": "digits", "transform": "transpose+invert", "train": 128, "dev": 32, "test": 64},
        "source": {"dataset": "digits", "train": 128, "dev": 32, "test": 64},
        "pretrain": {"steps": 30, "batch": 32},
        "trainable": 0.25,
        "budget": {"steps": 12, "batch": 16},
    }


def checks() -> tuple[Check, ...]:
    return training.common_checks("adapt", [sample()])
