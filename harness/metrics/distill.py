"""How far a student's answers are from its teacher's."""

from __future__ import annotations

import numpy as np

from harness.errors import BadInput
from harness.metrics.subject import Subject
from harness.metrics.tasks import chosen, first
from harness.registry import metric
from harness.scores import Scores

VERSION = 1


@metric(bounds=(0, np.inf))
def divergence_from_teacher(subject: Subject) -> Scores:
    """KL(teacher || student) of the answers to each test item, in nats; of a text the mean over its tokens."""
    import torch

    from harness.parts.kd import divergences
    from harness.tasks import outputs

    if "teacher" not in subject.extra:
        raise BadInput("metric divergence_from_teacher is for problems of the track distill, which have a teacher")
    ((_, task),) = chosen(subject, None, "divergence_from_teacher").items()
    split = first(task.test, subject.limit)
    found = []
    for start in range(0, len(split), 64):  # the logits of a whole split of text would not fit in memory
        part = split.part(range(start, min(start + 64, len(split))))
        student, teacher = (outputs(task, model, part) for model in (subject.model, subject.extra["teacher"]))
        found.append(divergences(student, teacher))
    limit = f"|items:{len(split)}" if subject.limit else ""
    return Scores(
        ids=list(split.ids),
        values=np.maximum(torch.cat(found).double().numpy(), 0.0),
        signature=f"divergence_from_teacher|{task.signature}{limit}|v:{VERSION}",
        unit="nats",
        blocks=split.blocks,
    )
