"""The distill track: a trained teacher, a student with fresh weights and a task in; the taught student out.

models: ["mlp(width=256, depth=2)"]     # the teachers: made from the task and trained first, or checkpoints
problem:
  student: "mlp(width=16, depth=2)"     # of harness.models.small, or a checkpoint
  task: {dataset: digits, train: 1000, dev: 200}
  teacher: {steps: 600, batch: 64, lr: 0.001, weight_decay: 0.01}   # how a teacher made from the task is trained
  parameters: 0.7                       # the most numbers a student may have, as a part of the teacher's
  budget: {steps: 400, batch: 64}       # forwards is 2 here: the teacher's passes count
  tuning: 6

A teacher is trained on the problem's own training data, labels as noisy as they are there; its training is not the
methods' cost, and it is kept (harness.cache), so that all methods of a seed have the same one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.errors import BadInput, TrialFailed
from harness.problem import Problem
from harness.tasks import Task, describe_task, make_task
from harness.tracks import training

if TYPE_CHECKING:
    from harness.check import Check
    from harness.metrics.subject import Subject
    from harness.registry import Entry
    from harness.solution import Solution

FIELDS = ("model", "student", "task", "teacher", "parameters")
TEACHER: dict[str, Any] = {"steps": 600, "batch": 64, "lr": 1e-3, "weight_decay": 0.01}
"""Fields of `teacher` and what they are when left out; trained by AdamW."""
BUDGET = {"forwards": 2.0}


@dataclass(kw_only=True)
class DistillProblem(Problem):
    """A trained teacher, which is only lent, a student to train, and the most numbers a student may have, if any."""

    teacher: nn.Module
    student: nn.Module
    parameters: int | None = None

    @property
    def model(self) -> nn.Module:
        """What `fit` trains unless it is given another model."""
        return self.student

    def targets(self, inputs: Tensor) -> Tensor:
        """The teacher's logits, without a gradient: (N, classes), or (N, L, vocabulary)."""
        with torch.no_grad():
            return self.task.logits(self.teacher, inputs)


@dataclass(kw_only=True)
class LanguageDistillProblem(DistillProblem):
    """A problem whose teacher is a causal language model, for methods that rebuild it block by block."""


def describe(spec: Mapping[str, Any]) -> dict[str, str]:
    """Content hashes of teacher, student and data. Raises BadInput for a field that is unknown or wrong, and for a
    student that does not answer in the teacher's classes or tokens."""
    from harness.tasks import task_kind

    training.known(spec, FIELDS, required=("model", "student", "task"))
    training.granted(spec, BUDGET)
    part = spec.get("parameters")
    if part is not None and (isinstance(part, bool) or not isinstance(part, int | float) or not 0 < part <= 1):
        raise BadInput(f"problem: parameters={part!r} is not accepted; it takes a part of the teacher's, above 0 to 1")
    hashes = training.describe_trained(spec, {"task": spec["task"]})
    _teaching(spec)
    kind = task_kind(spec["task"])
    student = training.describe_model(spec["student"], kind)
    _same_tokens(spec, kind)
    return {**hashes, "student": student}


def build(spec: Mapping[str, Any], *, seed: int) -> DistillProblem:
    """The task, the trained teacher and a student; samples and the student's weights are drawn from `seed`.

    Raises BadInput for a student with other classes than the teacher, or more numbers than are granted.
    """
    generator = torch.Generator().manual_seed(seed)
    task = make_task(spec["task"], generator, model=training.handle_of(spec["model"]))
    budget = training.granted(spec, BUDGET)
    teacher = _taught(spec, task, seed).eval().requires_grad_(False)
    student = training.make_model(spec["student"], task, generator, pretrained=True)
    with torch.no_grad():
        one = task.train.inputs[:1]
        answers = [task.logits(model.eval(), one).shape[-1] for model in (teacher, student)]
    student.train()
    if answers[0] != answers[1]:
        raise BadInput(f"problem: teacher {spec['model']} has {answers[0]} classes, student {spec['student']} "
                       f"{answers[1]}; they must be the same")  # fmt: skip
    granted = _granted(spec, teacher, student)
    for model in (teacher, student):
        budget.watch(model)
    make = LanguageDistillProblem if task.kind == "causal-lm" else DistillProblem
    return make(
        task=task, generator=generator, budget=budget, teacher=teacher, student=student, parameters=granted
    )  # fmt: skip


def solve(entry: Entry, problem: DistillProblem, params: Mapping[str, Any]) -> Solution:
    if entry.input_type == "LanguageDistillProblem" and not isinstance(problem, LanguageDistillProblem):
        raise BadInput(
            f"method {entry.name} takes a teacher of kind causal-lm; this one is of kind {problem.task.kind}"
        )
    return entry(problem, **params)


def develop(problem: DistillProblem, solution: Solution) -> float:
    """Mean loss on the development split."""
    return training.dev_loss(problem, problem.task, solution)


def subject(problem: DistillProblem, solution: Solution) -> Subject:
    found = training.subject_of(problem, solution, {problem.task.name: problem.task})
    found.extra["teacher"] = problem.teacher
    return found


def size(problem: DistillProblem, solution: Solution) -> dict[str, Any]:
    """Bytes of what is stored and the numbers in it. Raises TrialFailed for more numbers than the problem grants."""
    kept = sum(tensor.numel() for tensor in solution.tensors().values() if tensor.is_floating_point())
    if problem.parameters is not None and kept > problem.parameters:
        raise TrialFailed(f"the student has {kept} numbers; the problem grants {problem.parameters}")
    return training.trained_size(solution) | {"numbers": kept}


def samples(entry: Entry) -> list[dict[str, Any]]:
    """Problems of a second that a method takes, for the contract's checks."""
    text = {
        "model": "llama(hidden=16, layers=2, heads=2, kv_heads=2, mlp_dim=32)",
        "student": "llama(hidden=8, layers=1, heads=2, kv_heads=1, mlp_dim=16)",
        "task": {"dataset": "synthetic-lm", "tokenizer": "synthetic-lm", "length": 16, "train": 64, "dev": 16,
                 "test": 16},
        "teacher": {"steps": 12, "batch": 16},
        "parameters": 0.9,
        "budget": {"steps": 16, "batch": 16},
    }  # fmt: skip
    images = {
        "model": "mlp(width=24, depth=2)",
        "student": "mlp(width=12, depth=2)",
        "task": {"dataset": "digits", "train": 128, "dev": 32, "test": 64},
        "teacher": {"steps": 12, "batch": 16},
        "budget": {"steps": 24, "batch": 16},
    }
    return [text] if entry.input_type == "LanguageDistillProblem" else [images, text]


def checks() -> tuple[Check, ...]:
    return training.common_checks("distill", samples)


def _teaching(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `teacher`, complete."""
    from harness.models import small
    from harness.tasks.task import known_fields

    if "teacher" in spec and not small.is_small(spec["model"]):
        raise BadInput(f"problem: teacher={spec['teacher']!r} is not accepted: {spec['model']} is trained already")
    fields = known_fields(spec.get("teacher", {}), TEACHER, "teacher")
    for name, value in fields.items():
        whole = name in ("steps", "batch")
        right = type(value) is int and value >= 1 if whole else type(value) in (int, float) and 0 <= value < math.inf
        if not right:
            kind = "a number of at least 1" if whole else "a number of at least 0"
            raise BadInput(f"teacher: {name}={value!r} is not accepted; it takes {kind}")
    return fields


def _same_tokens(spec: Mapping[str, Any], kind: str) -> None:
    """BadInput where teacher, student and text do not share their tokenizer."""
    from harness.models import open_model, small

    if kind != "causal-lm":
        return
    named = {"teacher": spec["model"], "student": spec["student"]}
    read = {what: open_model(name) for what, name in named.items() if not small.is_small(name)}
    if spec["task"].get("tokenizer"):
        read["task"] = open_model(spec["task"]["tokenizer"])
    hashes = {what: handle.tokenizer_hash for what, handle in read.items()}
    if len(set(hashes.values())) > 1:
        told = ", ".join(f"{what} {handle.name}" for what, handle in read.items())
        raise BadInput(f"problem: {told}: their tokenizers differ; teacher and student must read the same tokens")


def _taught(spec: Mapping[str, Any], task: Task, seed: int) -> nn.Module:
    """The teacher: a checkpoint, or one made from the task and trained on it, read from the cache where it is there."""
    from harness.cache import cached
    from harness.models import small
    from harness.train import optimizers
    from harness.train.loop import Phase, run_phases
    from harness.train.schedules import cosine

    generator = torch.Generator().manual_seed(seed + 10**6)  # another stream than the student's
    teacher = training.make_model(spec["model"], task, generator, pretrained=True)
    if not small.is_small(spec["model"]):
        return teacher
    fields = _teaching(spec)

    def train() -> dict[str, Tensor]:
        phase = Phase(
            steps=fields["steps"],
            batches=task.batches(fields["batch"], seed),
            loss=task.loss,
            optimizer=optimizers.adamw(fields["lr"], fields["weight_decay"]),
            schedule=cosine(warmup=fields["steps"] // 20),
        )
        run_phases(teacher, [phase], generator=generator)
        return dict(teacher.state_dict())

    key = {"what": "teacher", "model": spec["model"], "task": spec["task"], "data": describe_task(spec["task"]),
           "recipe": fields, "seed": seed}  # fmt: skip
    teacher.load_state_dict(cached(key, train))
    return teacher


def _granted(spec: Mapping[str, Any], teacher: nn.Module, student: nn.Module) -> int | None:
    """The most numbers of a student, if the problem says; BadInput for one that has more."""
    if (part := spec.get("parameters")) is None:
        return None
    numbers, its = (sum(p.numel() for p in model.parameters()) for model in (teacher, student))
    granted = int(part * numbers)
    if its > granted:
        raise BadInput(f"problem: student {spec['student']} has {its} numbers; parameters={part} of the teacher's "
                       f"{numbers} are {granted}")  # fmt: skip
    return granted
