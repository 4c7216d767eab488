"""What the tracks that train share: the fields `budget` and `tuning` of a problem, models by name, sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput, nearest

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.check import Check
    from harness.metrics.subject import Subject
    from harness.problem import Problem
    from harness.solution import Solution
    from harness.tasks import Task
    from harness.tracks.checks import Specs
    from harness.train.budget import Budget

BUDGET: dict[str, Any] = {"steps": 400, "batch": 64, "forwards": 1.0, "backwards": 1.0}
"""Fields of `budget`: updates, samples of a step, and the forward and backward passes that each step grants."""
COMMON = ("budget", "tuning")
MAX_TRIES = 1000


def known(spec: Mapping[str, Any], fields: tuple[str, ...], *, required: tuple[str, ...] = ()) -> None:
    """BadInput for a field of the problem that is unknown or missing."""
    for name in spec:
        if name not in (*fields, *COMMON):
            raise BadInput(f"problem: unknown field {name}; {nearest(str(name), (*fields, *COMMON))}")
    for name in required:
        if name not in spec:
            raise BadInput(f"problem: field {name} is missing")


def check_common(spec: Mapping[str, Any]) -> None:
    """BadInput for a budget or a tuning that cannot be granted."""
    granted(spec)
    tries = spec.get("tuning", 0)
    if type(tries) is not int or not 0 <= tries <= MAX_TRIES:
        raise BadInput(f"problem: tuning={tries!r} is not accepted; it takes a number of tries from 0 to {MAX_TRIES}")


def granted(spec: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Budget:
    """The budget of a problem, none of it spent."""
    from harness.tasks.task import known_fields
    from harness.train.budget import Budget, Passes

    fields = known_fields(spec.get("budget", {}), {**BUDGET, **(defaults or {})}, "budget")
    for name, value in fields.items():
        whole = name in ("steps", "batch")
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value <= 0:
            kind = "a number of at least 1" if whole else "a number above 0"
            raise BadInput(f"budget: {name}={value!r} is not accepted; it takes {kind}")
    samples = fields["steps"] * fields["batch"]
    passes = Passes(fields["steps"], round(samples * fields["forwards"]), round(samples * fields["backwards"]))
    return Budget(granted=passes, batch=fields["batch"])


def describe_model(name: Any, kind: str | None = None) -> str:
    """The content hash of a model: of its expression, for one made from the task, else of the checkpoint."""
    from harness.models import open_model, small

    if not isinstance(name, str):
        raise BadInput(f"problem: model={name!r} is not accepted; it takes the name of a model")
    if small.is_small(name):
        small.describe(name, kind)
        return hashlib.sha256(name.encode()).hexdigest()
    handle = open_model(name)
    if kind is not None and handle.kind != kind:
        raise BadInput(f"model {name} is of kind {handle.kind}; the task is of kind {kind}")
    return handle.hash


def describe_trained(spec: Mapping[str, Any], tasks: Mapping[str, Any], model: str = "model") -> dict[str, str]:
    """Content hashes of a problem's tasks, by field, and of its model; BadInput for whatever of them is wrong."""
    from harness.tasks import describe_task, task_kind

    check_common(spec)
    hashes: dict[str, str] = {}
    for field, task in tasks.items():
        hashes |= {f"{field}.{split}": digest for split, digest in describe_task(task).items()}
    kind = task_kind(next(iter(tasks.values()))) if tasks else None
    return {model: describe_model(spec.get(model), kind), **hashes}


def handle_of(name: str) -> Any:
    """The handle of a model that is a checkpoint; None for one made from the task."""
    from harness.models import open_model, small

    return None if small.is_small(name) else open_model(name)


def make_model(name: str, task: Task, generator: torch.Generator, *, pretrained: bool) -> nn.Module:
    """A model for a task: made from it, or a checkpoint's, with its weights or fresh ones. In training mode, every
    parameter asking for a gradient."""
    from harness.models import open_model, small

    if small.is_small(name):
        model = small.build(name, task, generator)
    elif pretrained:
        model = open_model(name).load(requires_grad=True)
    else:
        model = small.seeded(open_model(name).fresh, generator)
    return model.train().requires_grad_(True)


def trained_size(solution: Solution) -> dict[str, Any]:
    """Bytes of what is stored, measured on the tensors, and the numbers in it."""
    tensors = solution.tensors()
    return {
        "model_bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "numbers": sum(tensor.numel() for tensor in tensors.values()),
    }


def dev_loss(problem: Problem, task: Task, solution: Solution, condition: Any = None) -> float:
    """Mean loss on the development split, which tuning chooses by; not charged to the passes."""
    from harness.tasks import evaluate

    with problem.budget.free():
        return float(evaluate(task, solution.model_for(condition), task.dev)["loss"].mean())


def subject_of(problem: Problem, solution: Solution, tasks: Mapping[str, Task]) -> Subject:
    """What the metrics evaluate: the model (by task, where it depends on one) and the test data of the tasks."""
    from harness.metrics.subject import Subject

    problem.budget.paused = True  # the method is done; what is evaluated now is not its cost
    one = next(iter(tasks.values()))
    return Subject(
        solution.model_for(one.name).eval(),
        one.kind,
        tasks=dict(tasks),
        model_for=solution.model_for,
        extra=dict(solution.extra),
    )


def common_checks(track: str, specs: Specs) -> tuple[Check, ...]:
    """The contract of every track whose methods train, on small problems given by their specifications."""
    from harness.tracks.checks import checks_on

    return checks_on(track, specs)
