"""Scores of a model that learned one task after the other: what it forgot, by test item."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.errors import BadInput
from harness.metrics.subject import Subject
from harness.registry import metric
from harness.scores import Scores

VERSION = 1


@metric(paper="chaudhry2018riemannian", bounds=(-1, 1))
def average_forgetting(subject: Subject) -> Scores:
    """How much accuracy on earlier tasks was lost: the highest before the last task minus that at the end.

    F of Chaudhry et al. (2018), averaged over all tasks but the last. Each test item of these is scored: right
    after the task at which its own task was known best, minus right at the end (-1, 0 or 1).
    """
    from harness.parts.continual import forgotten

    return _scores(subject, "average_forgetting", forgotten, higher_is_better=False)


@metric(paper="lopezpaz2017gradient", bounds=(-1, 1))
def backward_transfer(subject: Subject) -> Scores:
    """How much learning later tasks changed the accuracy on earlier ones; it is negative where they were forgotten.

    BWT of Lopez-Paz and Ranzato (2017): R[T][j] - R[j][j], averaged over all tasks but the last. Each test item
    of these is scored: right at the end minus right after its own task.
    """
    from harness.parts.continual import transferred

    return _scores(subject, "backward_transfer", transferred, higher_is_better=True)


def _scores(
    subject: Subject,
    what: str,
    by_task: Callable[[list[list[np.ndarray]]], list[np.ndarray]],
    *,
    higher_is_better: bool,
) -> Scores:
    """Scores by item, weighted so that every task counts the same."""
    if "rights" not in subject.extra:
        raise BadInput(f"metric {what} is for problems of the continual track")
    tasks = subject.extra["tasks"]
    earlier = tasks[:-1]
    values = by_task(subject.extra["rights"])
    counts = [min(len(each), subject.limit or len(each)) for each in values]
    values = [each[:count] for each, count in zip(values, counts, strict=True)]
    ids = [id for task, count in zip(earlier, counts, strict=True) for id in task.test.ids[:count]]
    limit = f"|items:{len(ids)}" if subject.limit else ""
    data = earlier[0].signature.rpartition("|classes:")[0]
    return Scores(
        ids=ids,
        values=np.concatenate(values),
        signature=f"{what}|{data}|tasks:{len(tasks)}{limit}|v:{VERSION}",
        unit="accuracy",
        higher_is_better=higher_is_better,
        weights=np.concatenate([np.full(count, 1 / count) for count in counts]),
        # The order of the classes, and so which task comes last, is drawn from the seed.
        nested=True,
        extra={task.name: float(each.mean()) for task, each in zip(earlier, values, strict=True)},
    )
