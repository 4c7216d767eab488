"""What a model forgets while it learns something else, per item of what it could do before."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from harness.errors import BadInput, TrialFailed
from harness.metrics.subject import Subject
from harness.metrics.tasks import first
from harness.params import Fraction
from harness.registry import metric
from harness.scores import Scores

VERSION = 1


@metric()
def forgetting(subject: Subject, *, of: Literal["loss", "accuracy"] = "loss", at: Fraction | None = None) -> Scores:
    """How much worse each test item of the source became: its loss now less its loss before, in nats, or the accuracy
    it lost.

    With `at`, not of the model as it ended but where it was equally good at the target for every method: where the
    target's dev loss had first fallen by this part of what it was. Between two evaluations of the training, scores are
    interpolated. Where the dev loss never fell so far there is nothing to read, and the trial fails with both figures:
    a mean over the seeds that got there would be one over the easier seeds. A suite's `at` is therefore one that all
    of its methods reach on dev.
    """
    before = subject.extra.get("before")
    if not before or "source" not in subject.tasks:
        raise BadInput("metric forgetting is for problems with a source; those of the track adapt have one")
    source = subject.tasks["source"]
    split = first(source.test, subject.limit)
    key = f"source_{of}"
    if at is None:
        from harness.tasks import evaluate

        model = subject.model if subject.model_for is None else subject.model_for("source")
        after = evaluate(source, model, split)[of]
    else:
        after = matched(subject.extra["path"], at, key)[: len(split)]
    sign = 1 if of == "loss" else -1
    where = "" if at is None else f"|at:-{at:g}"
    limit = f"|items:{len(split)}" if subject.limit else ""
    return Scores(
        ids=list(split.ids),
        values=sign * (after - np.array(before[key])[: len(split)]),
        signature=f"forgetting|{of}{where}|{source.signature}{limit}|v:{VERSION}",
        unit="nats" if of == "loss" else "accuracy",
        higher_is_better=False,
        blocks=split.blocks,
    )


def matched(path: Sequence[Mapping[str, Any]], part: float, key: str) -> np.ndarray:
    """Per-item scores where the dev loss had first fallen by `part` of its first value, between two rows of the path
    by linear interpolation. Raises TrialFailed where it never did."""
    level = (1 - part) * path[0]["dev_loss"]
    for earlier, later in itertools.pairwise(path):
        if later["dev_loss"] <= level:
            share = (earlier["dev_loss"] - level) / (earlier["dev_loss"] - later["dev_loss"])
            return (1 - share) * np.array(earlier[key]) + share * np.array(later[key])
    least = min(row["dev_loss"] for row in path)
    raise TrialFailed(f"forgetting: the target's dev loss came down to {least:.4g}; at={part:g} asks for {level:.4g}")
