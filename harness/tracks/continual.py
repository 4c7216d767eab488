"""The continual track: the classes of a task in a sequence of tasks, one model that must know all of them at the end.

models: ["mlp(width=128, depth=1)"]
problem:
  task: {dataset: digits, train: 1000, dev: 200}
  sequence: 5         # as many tasks, the classes in an order drawn from the seed; or the classes: [[0, 1], [2, 3]]
  memory: 20          # samples that may be kept of earlier tasks
  encoder: resnet20   # a frozen network whose features are the inputs: a checkpoint, or random(width=256); or none
  budget: {steps: 100, batch: 32}   # of each task
  tuning: 6           # tries, chosen by the accuracy on the development data of all tasks at the end

Class-incremental: the model is not told which task an item is from. A method trains on `problem.tasks` in their order
and calls `problem.after_task(model)` after each; what the model knows then is the accuracy matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.cache import cached
from harness.errors import BadInput, TrialFailed
from harness.params import Count, bind, complete, parse_expression, signature_params
from harness.parts import continual
from harness.problem import Problem
from harness.tasks import Split, Task, evaluate, make_task, outputs
from harness.tracks import training
from harness.train.budget import Budget

if TYPE_CHECKING:
    from harness.check import Check
    from harness.metrics.subject import Subject
    from harness.registry import Entry
    from harness.solution import Solution

FIELDS = ("model", "task", "sequence", "memory", "encoder")
PARTS = ("train", "dev", "test")
RANDOM = "random"
"""The encoder that is not a checkpoint: ReLU features of random directions."""


@dataclass(kw_only=True)
class ContinualProblem(Problem):
    """A sequence of tasks with classes of their own, and a model with an output for every class.

    `memory` is the number of samples that may be kept; `unlabelled` (N, ...) the training inputs of all tasks without
    their labels, for what is learned before the sequence begins (keys of a codebook). `rights` is what `after_task` has
    found so far.
    """

    model: nn.Module
    tasks: list[Task]
    memory: int
    unlabelled: Tensor
    rights: list[list[np.ndarray]] = field(default_factory=list)

    @property
    def seen(self) -> list[int]:
        """The classes of the tasks up to the one that is being learned."""
        return sorted(
            label for task in self.tasks[: len(self.rights) + 1] for label in continual.classes_of(task.train)
        )

    def steps(self, forward: float = 1, backward: float = 1) -> int:
        """Updates for the task that is being learned: its share of what is left of the budget, when each takes so many
        passes of a batch."""
        spent, granted, batch = self.budget.passes, self.budget.granted, self.budget.batch
        left = (
            granted.steps - spent.steps,
            (granted.forward - spent.forward) / (forward * batch),
            (granted.backward - spent.backward) / (backward * batch),
        )
        return int(min(left) / (len(self.tasks) - len(self.rights)))

    def after_task(self, model: nn.Module) -> None:
        """Say that a task has been learned: the model is tried on the test data of all tasks, at no cost. Of the logits
        only those of classes that have been seen count. Raises TrialFailed when there is no task left."""
        if len(self.rights) == len(self.tasks):
            raise TrialFailed(f"after_task was called more often than there are tasks ({len(self.tasks)})")
        with self.budget.free():
            self.rights.append([self._right(model, task) for task in self.tasks])

    def _right(self, model: nn.Module, task: Task) -> np.ndarray:
        logits = continual.seen_only(outputs(task, model, task.test), self.seen)
        return (logits.argmax(-1) == task.test.labels).double().numpy()


def describe(spec: Mapping[str, Any]) -> dict[str, str]:
    """Content hashes of the model, the data and the encoder. Raises BadInput for a field that is unknown or wrong: an
    empty sequence, a class in two tasks."""
    training.known(spec, FIELDS, required=("model", "task", "sequence"))
    _check_sequence(spec["sequence"])
    memory = spec.get("memory", 0)
    if type(memory) is not int or memory < 0:
        raise BadInput(f"problem: memory={memory!r} is not accepted; it takes a number of samples of at least 0")
    hashes = training.describe_trained(spec, {"task": spec["task"]})
    encoder = spec.get("encoder")
    if encoder is not None:
        hashes["encoder"] = encoder if _width(encoder) else training.describe_model(encoder, "vision")
    return hashes


def _check_sequence(sequence: Any) -> None:
    if type(sequence) is int and sequence >= 2:
        return
    if not isinstance(sequence, list) or len(sequence) < 2:
        raise BadInput(
            f"problem: sequence={sequence!r} is not accepted; it takes a number of tasks of at least 2, or a list "
            "of at least 2 lists of classes"
        )
    taken: dict[int, int] = {}
    for at, classes in enumerate(sequence):
        if not isinstance(classes, list) or not classes or any(type(label) is not int for label in classes):
            raise BadInput(f"problem: sequence[{at}]={classes!r} is not accepted; it takes a list of classes")
        for label in classes:
            if label in taken:
                raise BadInput(
                    f"problem: sequence[{at}] has class {label}, which sequence[{taken[label]}] has too; "
                    "a class belongs to one task"
                )
            taken[label] = at


def _random(*, width: Count = 256) -> int:
    return width


def _width(encoder: Any) -> int:
    """The width of a random encoder, 0 for a checkpoint."""
    if not isinstance(encoder, str):
        raise BadInput(f"problem: encoder={encoder!r} is not accepted; it takes a model's name or random(width=256)")
    if encoder.partition("(")[0] != RANDOM:
        return 0
    params = signature_params(_random, RANDOM)
    return int(complete(next(iter(bind(parse_expression(encoder), params, RANDOM))), params)["width"])


def build(spec: Mapping[str, Any], *, seed: int) -> ContinualProblem:
    """The tasks and a model with fresh weights; samples, order of the classes and weights come from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    encoder = spec.get("encoder")
    checkpoint = encoder if encoder is not None and not _width(encoder) else None
    handle = training.handle_of(checkpoint or spec["model"])
    whole = make_task(spec["task"], generator, model=handle)
    if encoder is not None:
        whole = _encoded(spec, whole, generator, handle, seed)
    tasks = [_task(whole, classes) for classes in _sequence(spec["sequence"], whole, generator)]
    model = training.make_model(spec["model"], whole, generator, pretrained=True)
    each = training.granted(spec)
    total = replace(each.granted, **{name: len(tasks) * value for name, value in vars(each.granted).items()})
    budget = Budget(granted=total, batch=each.batch)
    budget.watch(model)
    return ContinualProblem(
        task=whole, generator=generator, budget=budget, model=model, tasks=tasks, memory=spec.get("memory", 0),
        unlabelled=whole.train.inputs,
    )  # fmt: skip


def _sequence(sequence: int | list[list[int]], whole: Task, generator: torch.Generator) -> list[list[int]]:
    known = sorted(set(continual.classes_of(whole.train)) & set(continual.classes_of(whole.test)))
    if isinstance(sequence, list):
        for at, classes in enumerate(sequence):
            if unknown := [label for label in classes if label not in known]:
                raise BadInput(f"problem: sequence[{at}] has class {unknown[0]}; the data has {known}")
        return sequence
    if sequence > len(known):
        raise BadInput(f"problem: sequence={sequence} is more than the data's {len(known)} classes")
    order = torch.randperm(len(known), generator=generator).tolist()
    return continual.in_parts([known[at] for at in order], sequence)


def _task(whole: Task, classes: Sequence[int]) -> Task:
    """The part of a task that has these classes; it keeps an output for every class."""
    parts = {}
    for part in PARTS:
        split: Split = getattr(whole, part)
        rows = torch.isin(split.labels, torch.tensor(list(classes))).nonzero()[:, 0]
        parts[part] = split.part(rows)
    name = f"{whole.name}[{','.join(map(str, classes))}]"
    return replace(whole, name=name, signature=f"{whole.signature}|classes:{','.join(map(str, classes))}", **parts)


def _encoded(spec: Mapping[str, Any], whole: Task, generator: torch.Generator, handle: Any, seed: int) -> Task:
    """The task on an encoder's features (N, width) instead of its inputs."""
    width = _width(spec["encoder"])
    parts = {part: getattr(whole, part) for part in PARTS}
    if width:
        size = whole.train.inputs[0].numel()
        directions = torch.randn(size, width, generator=generator) / size**0.5
        made = {part: torch.relu(split.inputs.flatten(1) @ directions) for part, split in parts.items()}
    else:
        key = {
            "track": "continual",
            "encoder": handle.hash,
            "task": spec["task"],
            "content": describe(spec),
            "seed": seed,
        }
        made = cached(
            key, lambda: {part: continual.features(handle.load(), split.inputs) for part, split in parts.items()}
        )
    splits = {part: replace(split, inputs=made[part]) for part, split in parts.items()}
    return replace(whole, signature=f"{whole.signature}|encoder:{spec['encoder']}", **splits)


def solve(entry: Entry, problem: ContinualProblem, params: Mapping[str, Any]) -> Solution:
    """The method's solution, with the accuracy matrix in its log. Raises TrialFailed for a method that did not say
    after each task that it had learned it."""
    solution = entry(problem, **params)
    if len(problem.rights) != len(problem.tasks):
        raise TrialFailed(
            f"after_task was called {len(problem.rights)} times; the sequence has {len(problem.tasks)} tasks"
        )
    solution.log["tasks"] = [task.name for task in problem.tasks]
    solution.log["accuracy_matrix"] = continual.accuracy_matrix(problem.rights)
    return solution


def develop(problem: ContinualProblem, solution: Solution) -> float:
    """One minus the accuracy, at the end, on the development data of all tasks: losses would weigh the sureness with
    which forgotten classes are got wrong."""
    with problem.budget.free():
        found = [evaluate(task, solution.model_for(), task.dev)["accuracy"] for task in problem.tasks]
    return 1 - float(np.concatenate(found).mean())


def subject(problem: ContinualProblem, solution: Solution) -> Subject:
    """The model at the end on all tasks as one, whose items are the same for every seed; `extra`: the tasks, and what
    was right after each."""
    found = training.subject_of(problem, solution, {problem.task.name: problem.task})
    found.extra = {"tasks": problem.tasks, "rights": problem.rights}
    return found


def size(problem: ContinualProblem, solution: Solution) -> dict[str, Any]:
    return training.trained_size(solution)


def sample() -> dict[str, Any]:
    """A problem of a second, for the contract's checks."""
    return {
        "model": "mlp(width=16, depth=1)",
        "task": {"dataset": "digits", "train": 150, "dev": 50, "test": 64},
        "sequence": 3,
        "memory": 12,
        "budget": {"steps": 8, "batch": 16, "forwards": 3},
    }


def checks() -> tuple[Check, ...]:
    return training.common_checks("continual", [sample()])
