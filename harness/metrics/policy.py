"""Scores of policies, per episode; and of their training, per update."""

from __future__ import annotations

import numpy as np

from harness.errors import BadInput
from harness.metrics.subject import Subject
from harness.registry import metric
from harness.scores import Scores

VERSION = 1


@metric()
def episode_return(subject: Subject) -> Scores:
    """Undiscounted return of each test episode."""
    return _episodes(subject, "return", _rollout(subject, "episode_return").returns, higher_is_better=True)


@metric()
def episode_length(subject: Subject) -> Scores:
    """Steps of each test episode: for one token a step, the tokens of a response."""
    return _episodes(subject, "length", _rollout(subject, "episode_length").lengths, higher_is_better=False)


@metric()
def training_return(subject: Subject) -> Scores:
    """Mean return of each rollout while the policy was trained: how fast it learned. The unit is the update."""
    _rollout(subject, "training_return")
    curve = np.array(subject.extra["curve"], dtype=float)
    if not len(curve):
        raise BadInput("metric training_return is for methods that train; this one took no rollout")
    return Scores(
        ids=[f"update:{at}" for at in range(len(curve))],
        values=curve,
        signature=f"training-return|{subject.extra['training']}|updates:{len(curve)}|v:{VERSION}",
        unit="return",
        higher_is_better=True,
    )


def _rollout(subject: Subject, name: str):
    if "rollout" not in subject.extra:
        raise BadInput(f"metric {name} is for problems of the policy track")
    return subject.extra["rollout"]


def _episodes(subject: Subject, name: str, values, *, higher_is_better: bool) -> Scores:
    kept = values[: subject.limit].double().numpy()
    limit = f"|items:{len(kept)}" if len(kept) < len(values) else ""
    return Scores(
        ids=[f"episode:{at}" for at in range(len(kept))],
        values=kept,
        signature=f"{name}|{subject.extra['signature']}{limit}|v:{VERSION}",
        unit=name,
        higher_is_better=higher_is_better,
    )
