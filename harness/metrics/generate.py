"""Scores of generated networks: how well they do, and how far they are from the networks they were learned from."""

from __future__ import annotations

import numpy as np

from harness.errors import BadInput
from harness.metrics.subject import Subject
from harness.metrics.tasks import first
from harness.registry import metric
from harness.scores import Scores

VERSION = 1


@metric(bounds=(0, 1))
def generated_accuracy(subject: Subject) -> Scores:
    """The part of the generated networks that classify each test item rightly."""
    from harness.tasks import evaluate

    nets = _extra(subject, "nets", "generated_accuracy")
    task = next(iter(subject.tasks.values()))
    split = first(task.test, subject.limit)
    right = [evaluate(task, subject.extra["load"](net), split)["accuracy"] for net in nets]
    each = [float(one.mean()) for one in right]
    limit = f"|items:{len(split)}" if subject.limit else ""
    return Scores(
        ids=split.ids,
        values=np.mean(right, axis=0),
        signature=f"generated_accuracy|{task.signature}{limit}|v:{VERSION}",
        unit="accuracy",
        higher_is_better=True,
        extra={"best": max(each), "worst": min(each)},
    )


@metric(bounds=(0, np.inf))
def novelty(subject: Subject) -> Scores:
    """The mean distance of the generated networks to the nearest of the zoo, over the mean distance of two of the zoo.

    0 is a copy, 1 as far as another network of the zoo; units are matched before, so a copy in another order is one.
    One number a seed: the networks of two methods, which may be of different numbers, are not the same items.
    """
    values = _extra(subject, "novelty", "novelty").double().numpy()
    task = next(iter(subject.tasks.values()))
    return Scores(
        ids=["networks"],
        values=np.array([values.mean()]),
        signature=f"novelty|{task.signature}|v:2",
        unit="ratio",
        higher_is_better=True,
        extra={"nearest": float(values.min()), "farthest": float(values.max())},
    )


def _extra(subject: Subject, name: str, metric: str):
    if name not in subject.extra:
        raise BadInput(f"metric {metric} is for problems of the generate track")
    return subject.extra[name]
