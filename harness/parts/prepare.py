"""What a problem trains before a method sees it (a base, experts, a zoo): by a recipe, deterministic in the seed.

None of it is the method's cost, so it has a meter of its own. `harness.cache` keeps it for the other methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from harness.errors import BadInput
from harness.tasks.task import Split, Task, known_fields
from harness.train import optimizers
from harness.train.loop import Phase, run_phases
from harness.train.schedules import cosine

RECIPE: dict[str, Any] = {"steps": 300, "batch": 64, "lr": 1e-3, "weight_decay": 0.0}
"""Fields of a recipe: AdamW, its rate falling to zero as a cosine after a warm-up of 5% of the steps."""


def recipe(spec: Any, what: str, **defaults: Any) -> dict[str, Any]:
    """The fields of a recipe over the defaults. BadInput, naming the field `what` of the problem, for a wrong one."""
    fields = known_fields(spec, {**RECIPE, **defaults}, what)
    for name, value in fields.items():
        whole = name in ("steps", "batch")
        least = 1 if name == "batch" else 0
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < least:
            kind = "a number" if whole else "a rate"
            raise BadInput(f"{what}: {name}={value!r} is not accepted; it takes {kind} of at least {least}")
    return fields


def train(model: nn.Module, task: Task, fields: Mapping[str, Any], seed: int) -> nn.Module:
    """Train a model in place by a recipe; order of the data and every other draw come from `seed`."""
    steps = fields["steps"]
    if steps:
        phase = Phase(
            steps=steps,
            batches=task.batches(fields["batch"], seed),
            loss=task.loss,
            optimizer=optimizers.adamw(fields["lr"], fields["weight_decay"]),
            schedule=cosine(warmup=steps // 20),
        )
        run_phases(model, [phase], generator=torch.Generator().manual_seed(seed), log_every=max(1, steps))
    return model


def mixture(tasks: Mapping[str, Task]) -> Task:
    """One task of all the data of several tasks of one kind, with the same classes."""
    first = next(iter(tasks.values()))
    if len(tasks) == 1:
        return first

    def union(part: str) -> Split:
        splits = {name: getattr(task, part) for name, task in tasks.items()}
        blocks = [f"{name}/{block}" for name, split in splits.items() for block in (split.blocks or split.ids)]
        return Split(
            torch.cat([split.inputs for split in splits.values()]),
            torch.cat([split.labels for split in splits.values()]),
            [f"{name}/{id}" for name, split in splits.items() for id in split.ids],
            blocks if any(split.blocks for split in splits.values()) else None,
        )

    return Task(
        "+".join(tasks), first.kind, union("train"), union("dev"), union("test"),
        "+".join(task.signature for task in tasks.values()), max(task.classes for task in tasks.values()),
        first.tokenizer_hash,
    )  # fmt: skip
