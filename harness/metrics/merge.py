"""Scores of merged models beyond what each task's test data says: how flat the way between their ends is."""

from __future__ import annotations

import itertools
from typing import Annotated

import numpy as np

from harness.errors import BadInput
from harness.metrics.subject import Subject
from harness.metrics.tasks import first
from harness.params import Range
from harness.registry import metric
from harness.scores import Scores

VERSION = 1
RECALIBRATION = 10
"""Batches of 256 training samples from which batch norm's statistics are computed anew at each point."""


@metric(paper="frankle2020linear")
def barrier(subject: Subject, *, points: Annotated[int, Range(3, None)] = 11) -> Scores:
    """How much the loss rises on the straight line between two models above the line between their losses, in nats.

    max over t of L((1 - t) a + t b) - ((1 - t) L(a) + t L(b)), at `points` equal steps of t from 0 to 1, averaged over
    all pairs of the models that a method aligned (of the experts as they came, where it aligned none). Each test item
    of the mixture of all tasks is scored at the t that is the worst for the mean; `extra` has each pair's barrier.
    """
    from harness.parts.batchnorm import recalibrate
    from harness.parts.statedict import interpolate
    from harness.tasks import evaluate

    if "ends" not in subject.extra:
        raise BadInput("metric barrier is for problems of the merge track")
    ends, load, task = (subject.extra[name] for name in ("ends", "load", "mixture"))
    split = first(task.test, subject.limit)
    batches = task.batches(256, 0)
    sample = [batches(at).inputs for at in range(min(RECALIBRATION, max(1, len(task.train) // 256)))]

    def losses(a: int, b: int, t: float) -> np.ndarray:
        model = load(interpolate(ends[a], ends[b], t)).eval()
        if 0 < t < 1:
            recalibrate(model, sample)
        return evaluate(task, model, split)["loss"]

    at_ends = [losses(at, at, 0.0) for at in range(len(ends))]
    worst, extra = [], {}
    for a, b in itertools.combinations(range(len(ends)), 2):
        inner = [float(t) for t in np.linspace(0, 1, points)[1:-1]]
        rises = [losses(a, b, t) - ((1 - t) * at_ends[a] + t * at_ends[b]) for t in inner]
        worst.append(max([np.zeros(len(split)), *rises], key=lambda rise: float(rise.mean())))
        extra[f"{a}-{b}"] = float(worst[-1].mean())
    if not worst:
        raise BadInput("metric barrier takes at least 2 models to merge; there is 1")
    items = f"|items:{len(split)}" if subject.limit else ""
    return Scores(
        ids=split.ids,
        values=np.mean(worst, axis=0),
        signature=f"barrier|{task.signature}|points:{points}{items}|v:{VERSION}",
        unit="nats",
        higher_is_better=False,
        blocks=split.blocks,
        extra=extra,
    )
