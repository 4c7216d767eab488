"""The search track: a space of architectures and a task in; one architecture with its weights out.

models: ["cells(channels=8)"]           # the space, of harness.search
problem:
  task: {dataset: digits, train: 600, dev: 200}
  budget: {steps: 600, batch: 64}       # in passes of one subnet: an update that takes four of them uses up four
  parameters: 3000                      # the most numbers an architecture may have
  table: cells-digits                   # suites/reference/tables: all architectures, trained alone; for metrics
  tuning: 4

`forwards` is 2 here: candidates are ranked on the development split, and those passes count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.errors import BadInput, TrialFailed
from harness.problem import Problem
from harness.search.space import Arch, Mixture, Space, Subnet
from harness.tasks import make_task
from harness.tracks import training

if TYPE_CHECKING:
    from harness.check import Check
    from harness.metrics.subject import Subject
    from harness.registry import Entry
    from harness.search.table import Table
    from harness.solution import Solution

FIELDS = ("model", "task", "parameters", "table")
BUDGET = {"forwards": 2.0}
DRAWS = 10_000
"""Architectures that are drawn before a limit on parameters is taken for one that next to none keeps."""


@dataclass(kw_only=True)
class SearchProblem(Problem):
    """A space, its supernet with fresh weights, and the most numbers that an architecture may have, if any."""

    space: Space
    supernet: nn.Module
    parameters: int | None = None
    table: Table | None = None

    def allowed(self, arch: Arch) -> bool:
        """Whether an architecture is within the limit on its numbers."""
        return self.parameters is None or self.space.numbers(arch) <= self.parameters

    def draw(self, count: int) -> list[Arch]:
        """At most `count` different allowed architectures, in a random order; all there are, where there are fewer.

        Raises BadInput where hardly any is allowed.
        """
        found: dict[Arch, None] = {}
        if len(self.space) <= DRAWS:
            every = list(self.space)
            order = torch.randperm(len(every), generator=self.generator).tolist()
            for at in order:
                if len(found) < count and self.allowed(every[at]):
                    found[every[at]] = None
        else:
            for _ in range(DRAWS):
                if len(found) < count and self.allowed(arch := self.space.draw(self.generator)):
                    found[arch] = None
        if not found:
            raise BadInput(f"problem: parameters={self.parameters}: no architecture of {DRAWS} drawn has so few")
        return list(found)

    def subnet(self, arch: Arch | Mixture) -> nn.Module:
        """One architecture inside the supernet."""
        return Subnet(self.supernet, arch)

    def export(self, arch: Arch) -> nn.Module:
        """One architecture with a copy of its part of the supernet's weights; passes through it count."""
        return self._watched(self.space.export(self.supernet, arch))

    def fresh(self, arch: Arch) -> nn.Module:
        """One architecture with fresh weights; passes through it count."""
        from harness.models.small import seeded

        return self._watched(seeded(lambda: self.space.build(arch), self.generator))

    def _watched(self, model: nn.Module) -> nn.Module:
        self.budget.watch(model)
        return model.train()


def describe(spec: Mapping[str, Any]) -> dict[str, str]:
    """Content hashes of the space, the data and the table. Raises BadInput for a field that is unknown or wrong."""
    import hashlib

    from harness.search import describe_space
    from harness.search.table import find
    from harness.tasks import describe_task, task_kind

    training.known(spec, FIELDS, required=("model", "task"))
    training.check_common(spec)
    training.granted(spec, BUDGET)
    limit = spec.get("parameters")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise BadInput(f"problem: parameters={limit!r} is not accepted; it takes a number of at least 1")
    hashes = {f"task.{split}": digest for split, digest in describe_task(spec["task"]).items()}
    describe_space(spec["model"], task_kind(spec["task"]))
    hashes["model"] = hashlib.sha256(str(spec["model"]).encode()).hexdigest()
    if spec.get("table") is not None:
        hashes["table"] = hashlib.sha256(find(spec["table"]).read_bytes()).hexdigest()
    return hashes


def build(spec: Mapping[str, Any], *, seed: int) -> SearchProblem:
    """The task, the space and its supernet; samples and first weights are drawn from `seed`.

    Raises BadInput for a limit on parameters below the smallest architecture, and for a table of another space.
    """
    from harness.models.small import seeded
    from harness.search import make_space
    from harness.search.table import read_table

    generator = torch.Generator().manual_seed(seed)
    task = make_task(spec["task"], generator)
    space = make_space(spec["model"], task)
    budget = training.granted(spec, BUDGET)
    limit = spec.get("parameters")
    if limit is not None and (least := space.numbers(space.smallest)) > limit:
        raise BadInput(f"problem: parameters={limit} is not accepted; the smallest architecture of {spec['model']} has "
                       f"{least}")  # fmt: skip
    table = read_table(spec["table"]) if spec.get("table") is not None else None
    if table is not None:
        table.require(map(space.name, space), str(spec["model"]))
    supernet = seeded(lambda: space.make(space.genes), generator).train()
    budget.watch(supernet)
    return SearchProblem(
        task=task, generator=generator, budget=budget, space=space, supernet=supernet, parameters=limit, table=table
    )


def solve(entry: Entry, problem: SearchProblem, params: Mapping[str, Any]) -> Solution:
    return entry(problem, **params)


def develop(problem: SearchProblem, solution: Solution) -> float:
    """Mean loss on the development split."""
    return training.dev_loss(problem, problem.task, solution)


def subject(problem: SearchProblem, solution: Solution) -> Subject:
    """The architecture with its weights; what was searched is for the metrics of `harness.metrics.search`.

    Raises TrialFailed for an architecture beyond the limit.
    """
    if not problem.allowed(solution.arch):
        raise TrialFailed(f"the architecture {problem.space.name(solution.arch)} has more than {problem.parameters} "
                          "parameters")  # fmt: skip
    found = training.subject_of(problem, solution, {problem.task.name: problem.task})
    allowed = [problem.space.name(arch) for arch in problem.space if problem.allowed(arch)] if problem.table else []
    found.extra |= {
        "arch": problem.space.name(solution.arch),
        "predicted": dict(solution.log.get("predicted", {})),
        "table": problem.table,
        "allowed": allowed,
    }
    return found


def size(problem: SearchProblem, solution: Solution) -> dict[str, Any]:
    return training.trained_size(solution) | {"arch": problem.space.name(solution.arch)}


def predictions(space: Space, scores: Mapping[Arch, float]) -> dict[str, float]:
    """A ranking as a solution's log keeps it, under `predicted`: by the architectures' names, higher is better."""
    return {space.name(arch): score for arch, score in scores.items()}


def samples() -> list[dict[str, Any]]:
    """Problems of a second, for the contract's checks."""
    images = {"dataset": "digits", "train": 128, "dev": 32, "test": 64}
    text = {"dataset": "synthetic-lm", "tokenizer": "synthetic-lm", "length": 16, "train": 64, "dev": 16, "test": 16}
    budget = {"steps": 24, "batch": 16, "forwards": 4}
    return [
        {"model": "cells(channels=4, repeats=1)", "task": images, "budget": budget},
        {"model": "convs(width=4)", "task": images, "budget": budget, "parameters": 3000},
        {"model": "llamas(width=48, mlp_dim=18, layers=2)", "task": text, "budget": budget},
    ]


def checks() -> tuple[Check, ...]:
    return training.common_checks("search", samples())
