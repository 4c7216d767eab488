"""Scores of trained models on the test data of their tasks, per item."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.errors import BadInput, nearest
from harness.metrics.subject import Subject
from harness.registry import metric
from harness.scores import Scores

if TYPE_CHECKING:
    from harness.tasks import Split, Task

VERSION = 1


@metric(bounds=(0, 1))
def accuracy(subject: Subject, *, task: str | None = None) -> Scores:
    """Whether the likeliest class is the label, for each test item; of a text the part of its tokens.

    Over all tasks of the problem, or the one that `task` names.
    """
    return _scores(subject, task, "accuracy", unit="accuracy", higher_is_better=True)


@metric(bounds=(0, np.inf))
def cross_entropy(subject: Subject, *, task: str | None = None) -> Scores:
    """Cross-entropy of each test item, in nats; of a text the mean over its tokens."""
    return _scores(subject, task, "loss", unit="nats", higher_is_better=False)


def chosen(subject: Subject, task: str | None, metric: str) -> dict[str, Task]:
    """The subject's tasks, or the named one. BadInput for a subject without tasks, or without that one."""
    if not subject.tasks:
        raise BadInput(f"metric {metric} is for problems that have a task; this one names none")
    if task is None:
        return subject.tasks
    if task not in subject.tasks:
        raise BadInput(f"metric {metric}: unknown task {task!r}; {nearest(task, subject.tasks)}")
    return {task: subject.tasks[task]}


def first(split: Split, limit: int | None) -> Split:
    """The items that a limit leaves."""
    return split if limit is None or limit >= len(split) else split.part(range(limit))


def _scores(subject: Subject, task: str | None, what: str, *, unit: str, higher_is_better: bool) -> Scores:
    from harness.tasks import evaluate

    tasks = chosen(subject, task, what)
    ids: list[str] = []
    values, blocks, extra = [], [], {}
    for name, one in tasks.items():
        split = first(one.test, subject.limit)
        model = subject.model if subject.model_for is None else subject.model_for(name)
        found = evaluate(one, model, split)[what]
        values.append(found)
        prefix = f"{name}/" if len(tasks) > 1 else ""
        ids += [f"{prefix}{id}" for id in split.ids]
        blocks += [f"{prefix}{block}" for block in (split.blocks or split.ids)]
        if len(tasks) > 1:
            extra[name] = float(found.mean())
    limit = f"|items:{len(ids)}" if subject.limit else ""
    return Scores(
        ids=ids,
        values=np.concatenate(values),
        signature=f"{what}|{'+'.join(one.signature for one in tasks.values())}{limit}|v:{VERSION}",
        unit=unit,
        higher_is_better=higher_is_better,
        blocks=blocks if any(one.test.blocks for one in tasks.values()) else None,
        extra=extra,
    )
