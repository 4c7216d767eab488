"""The train track: a model with fresh weights and a task in, the trained model out.

models: ["mlp(width=128, depth=2)"]   # of harness.models.small, or a checkpoint whose config is trained anew
problem:
  task: {dataset: digits, train: 1000, dev: 200}
  budget: {steps: 400, batch: 64}
  tuning: 6                           # tries of learning rate and weight decay, chosen on dev
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.problem import Problem
from harness.tasks import make_task
from harness.tracks import training

if TYPE_CHECKING:
    from harness.check import Check
    from harness.metrics.subject import Subject
    from harness.registry import Entry
    from harness.solution import Solution


@dataclass(kw_only=True)
class TrainProblem(Problem):
    """A fresh model and a task to train it on. `fresh()` makes further models, each with new weights."""

    model: nn.Module
    fresh: Callable[[], nn.Module]


def describe(spec: Mapping[str, Any]) -> dict[str, str]:
    """Content hashes of the model and the data. Raises BadInput for a field that is unknown or wrong."""
    training.known(spec, ("model", "task"), required=("model", "task"))
    return training.describe_trained(spec, {"task": spec["task"]})


def build(spec: Mapping[str, Any], *, seed: int) -> TrainProblem:
    """The task and a model for it; which samples train, and the first weights, are drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    task = make_task(spec["task"], generator, model=training.handle_of(spec["model"]))
    budget = training.granted(spec)

    def fresh() -> nn.Module:
        model = training.make_model(spec["model"], task, generator, pretrained=False)
        budget.watch(model)
        return model

    return TrainProblem(task=task, generator=generator, budget=budget, model=fresh(), fresh=fresh)


def solve(entry: Entry, problem: TrainProblem, params: Mapping[str, Any]) -> Solution:
    return entry(problem, **params)


def develop(problem: TrainProblem, solution: Solution) -> float:
    """Mean loss on the development split."""
    return training.dev_loss(problem, problem.task, solution)


def subject(problem: TrainProblem, solution: Solution) -> Subject:
    return training.subject_of(problem, solution, {problem.task.name: problem.task})


def size(problem: TrainProblem, solution: Solution) -> dict[str, Any]:
    return training.trained_size(solution)


def sample() -> dict[str, Any]:
    """A problem of a second, for the contract's checks."""
    return {
        "model": "mlp(width=16, depth=2)",
        "task": {"dataset": "digits", "train": 128, "dev": 32, "test": 64},
        "budget": {"steps": 12, "batch": 16},
    }


def checks() -> tuple[Check, ...]:
    return training.common_checks("train", [sample()])
