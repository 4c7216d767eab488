"""Whether a model's probabilities are what they say: Brier score and calibration error, per item.

The calibration error of a classifier sorts its answers by confidence, the probability of the likeliest class, cuts them
into bins of equal mass, and compares each bin's accuracy with its mean confidence:

    ECE = sum_b (n_b / n) |accuracy_b - confidence_b| = mean_i s_b(i) (right_i - confidence_i),

where s_b is the sign of the bin's gap and b(i) the bin of item i. So an item's value is its signed gap, the mean over
items is the ECE exactly, and resampling items with their bins' signs is the resampling of the ECE to first order.
Values lie between -1 and 1; only their mean is an error. Of a text every token is an answer, and a window's value the
mean over its tokens. The ECE of a perfectly calibrated model is not zero but what chance leaves in bins of n_b answers,
so it depends on the number of items and of bins, both of which are in the signature.

For predicted quantiles the level is the confidence: the mean over levels t of |part of the targets below q_t - t|,
decomposed in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import BadInput
from harness.metrics.subject import Subject
from harness.metrics.tasks import chosen, first
from harness.params import Count
from harness.registry import metric
from harness.scores import Scores

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.tasks import Split, Task

VERSION = 1
AT_ONCE = 64
"""Items whose logits are held at once: those of a whole split of text would not fit in memory."""
Answers = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(items, answers of an item): confidence, whether it was right, squared distance from the label."""


@metric(paper="brier1950verification", bounds=(0, 2))
def brier_score(subject: Subject, *, task: str | None = None) -> Scores:
    """Squared distance between the predicted probabilities and the label, summed over the classes, 0 to 2; by item.

    Of a text the mean over its tokens. Over all tasks of the problem, or the one that `task` names. Raises BadInput for
    a problem without tasks.
    """
    return _scores(subject, task, "brier_score", "", lambda found: found[2].mean(1))


@metric(paper="nixon2019measuring", bounds=(0, 1))
def calibration_error(subject: Subject, *, task: str | None = None, bins: Count = 15) -> Scores:
    """Expected calibration error with bins of equal mass: signed gaps by item, whose mean is the error.

    Over all tasks of the problem, each with its own bins, or the one that `task` names. For predicted quantiles the
    mean over their levels, without bins. The module's documentation says what an item's value is. Raises BadInput for
    predictions of the mean and where there are fewer answers than bins.
    """
    if "predicted" in subject.extra:
        return _of_quantiles(subject)
    return _scores(subject, task, "calibration_error", f"|bins:{bins}", lambda found: gaps(found[0], found[1], bins))


def gaps(confidence: np.ndarray, right: np.ndarray, bins: int) -> np.ndarray:
    """Signed gaps (items,) of confidences and rights (items, answers), averaged over an item's answers.

    Bins hold equally many answers but for one; answers of one confidence keep their order. Raises BadInput for fewer
    answers than bins.
    """
    sure, correct = confidence.ravel(), right.ravel().astype(float)
    if len(sure) < bins:
        raise BadInput(f"calibration_error: bins={bins} is not accepted for {len(sure)} answers; it takes no more")
    gap = correct - sure
    signed = np.empty_like(gap)
    for rows in np.array_split(np.argsort(sure, kind="stable"), bins):
        signed[rows] = gap[rows] * (1 if gap[rows].sum() >= 0 else -1)
    return signed.reshape(confidence.shape).mean(1)


def quantile_gaps(predicted: np.ndarray, target: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Signed gaps (n,) of quantiles (n, levels), averaged over the levels (Kuleshov et al. 2018, in absolute value)."""
    gap = (target[:, None] <= predicted) - levels
    return (gap * np.where(gap.sum(0) >= 0, 1, -1)).mean(1)


def _of_quantiles(subject: Subject) -> Scores:
    extra = subject.extra
    levels = np.asarray(extra["levels"], dtype=float)
    if not len(levels):
        raise BadInput("metric calibration_error is for classes and quantiles (bases: quantile)")
    kept = min(len(extra["target"]), subject.limit or len(extra["target"]))
    limit = f"|items:{kept}" if kept < len(extra["target"]) else ""
    shown = ",".join(f"{level:g}" for level in levels)
    return Scores(
        ids=list(extra["ids"][:kept]),
        values=quantile_gaps(extra["predicted"][:kept], extra["target"][:kept], levels),
        signature=f"calibration_error|{extra['signature']}|levels:{shown}{limit}|v:{VERSION}",
        unit="probability",
    )


def answers(task: Task, model: nn.Module, split: Split) -> Answers:
    """What a model says of a split's items."""
    import torch

    from harness.tasks import outputs

    found: list[tuple[Tensor, ...]] = []
    for start in range(0, len(split), AT_ONCE):
        part = split.part(range(start, min(start + AT_ONCE, len(split))))
        p = outputs(task, model, part).double().softmax(-1)
        sure, guess = p.max(-1)
        at_label = p.gather(-1, part.labels[..., None])[..., 0]
        distance = p.square().sum(-1) - 2 * at_label + 1
        found.append(tuple(one.view(len(part), -1) for one in (sure, guess == part.labels, distance)))
    confidence, right, distance = (torch.cat(one).numpy() for one in zip(*found, strict=True))
    return confidence, right, distance


def _scores(subject: Subject, task: str | None, name: str, how: str, value: Callable[[Answers], np.ndarray]) -> Scores:
    tasks = chosen(subject, task, name)
    ids: list[str] = []
    blocks: list[str] = []
    values = []
    for at, one in tasks.items():
        split = first(one.test, subject.limit)
        model = subject.model if subject.model_for is None else subject.model_for(at)
        values.append(value(answers(one, model, split)))
        prefix = f"{at}/" if len(tasks) > 1 else ""
        ids += [f"{prefix}{id}" for id in split.ids]
        blocks += [f"{prefix}{block}" for block in (split.blocks or split.ids)]
    limit = f"|items:{len(ids)}" if subject.limit else ""
    return Scores(
        ids=ids,
        values=np.concatenate(values),
        signature=f"{name}|{'+'.join(one.signature for one in tasks.values())}{limit}{how}|v:{VERSION}",
        unit="probability" if name == "calibration_error" else "",
        blocks=blocks if any(one.test.blocks for one in tasks.values()) else None,
    )
