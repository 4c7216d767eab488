"""Times of stored formats: medians over interleaved rounds, each round an item, beside the machine's limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.errors import BadInput
from harness.metrics.subject import Subject
from harness.registry import metric
from harness.scores import Scores, Summary

if TYPE_CHECKING:
    from harness.latency.timing import Timing

VERSION = 1
MEGA = 1e6


@metric()
def product_time(subject: Subject) -> Scores:
    """Microseconds of one pass through the layers; `extra` has the limit, what reading the stored bytes takes."""
    timing = _timing(subject, "product_time", "product")
    limit = {"limit": MEGA * float(np.median(timing.limit)), "spread": timing.spread}
    return _scores(subject, "product-time", MEGA * timing.seconds(), unit="µs", extra=limit)


@metric()
def decode_rate(subject: Subject) -> Scores:
    """Tokens per second after the first, of all rows together; `extra` has the limit, all weights read once a token."""
    timing = _timing(subject, "decode_rate", "token")
    limit = {"limit": timing.rows / float(np.median(timing.limit)), "spread": timing.spread}
    rates = timing.rows / timing.seconds()
    return _scores(subject, "decode-rate", rates, unit="tokens/s", higher_is_better=True, extra=limit)


@metric()
def first_token_time(subject: Subject) -> Scores:
    """Milliseconds from the prompt to the first token."""
    timing = _timing(subject, "first_token_time", "token")
    return _scores(subject, "first-token-time", 1e3 * timing.seconds("first"), unit="ms")


@metric()
def speedup(subject: Subject, *, phase: Literal["main", "first"] = "main") -> Scores:
    """Time of the suite's baseline over the method's, in the same round of the same process: above 1 is faster.

    `phase`: a product or a token after the first, or the first token.
    """
    timing = _timing(subject, "speedup", "token" if phase == "first" else "")
    logs = timing.log_speedups("first" if phase == "first" else None)
    return _scores(
        subject, f"speedup-{phase}", logs, unit="x", summary="exp_median", higher_is_better=True,
        extra={"p": timing.ratio(None if phase == "main" else phase).p} if len(logs) > 5 else None,
    )  # fmt: skip


@metric()
def of_limit(subject: Subject) -> Scores:
    """Percent of what the machine allows: the time of reading the stored bytes at the bandwidth of the same round (or
    of the float32 arithmetic at its measured peak, where that is longer) over the time taken."""
    timing = _timing(subject, "of_limit")
    return _scores(subject, "of-limit", timing.of_limit, unit="%", higher_is_better=True)


@metric()
def run_memory(subject: Subject) -> Scores:
    """Megabytes that the model and its run add to the process (on a GPU to the device), at their peak."""
    timing = _timing(subject, "run_memory", "token")
    if timing.memory is None:
        raise BadInput("metric run_memory: this system does not tell a process's peak of memory")
    signature = f"run-memory|{timing.signature}|v:{VERSION}"
    return Scores(["run"], np.array([timing.memory / MEGA]), signature, unit="MB", nested=True)


def _timing(subject: Subject, name: str, phase: str = "") -> Timing:
    """The trial's timing; BadInput for another track, and for a metric of what it did not time."""
    timing: Timing | None = subject.extra.get("timing")
    if timing is None:
        raise BadInput(f"metric {name} is for problems of the latency track")
    if phase and phase != timing.phase:
        raise BadInput(f"metric {name} is for problems that measure a {phase}, not a {timing.phase}")
    return timing


def _scores(
    subject: Subject,
    name: str,
    values: np.ndarray,
    *,
    unit: str,
    summary: Summary = "median",
    higher_is_better: bool = False,
    extra: dict[str, float] | None = None,
) -> Scores:
    kept = values[: subject.limit or len(values)]
    return Scores(
        [f"round {at:03d}" for at in range(len(kept))],
        kept,
        f"{name}|{subject.extra['timing'].signature}|v:{VERSION}",
        summary,
        unit,
        higher_is_better,
        extra=extra or {},
        nested=True,
    )
