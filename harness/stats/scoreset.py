"""Scores of one method over seeds and items, aligned by item id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import BadInput
from harness.scores import Scores, Summary, summarize


@dataclass(frozen=True)
class ScoreSet:
    """Per-item scores of one method under several seeds.

    `values` is (seeds S, items N), `weights` and `targets` are (N,), `blocks` (N,) integer codes of the unit of
    resampling (a document); all items are in the order of `ids`, which is sorted.
    """

    ids: tuple[str, ...]
    values: np.ndarray
    seeds: tuple[int, ...]
    signature: str = ""
    summary: Summary = "mean"
    higher_is_better: bool = False
    unit: str = ""
    weights: np.ndarray | None = None
    targets: np.ndarray | None = None
    blocks: np.ndarray | None = None

    @classmethod
    def stack(cls, scores: Sequence[Scores], seeds: Sequence[int]) -> ScoreSet:
        """Align the scores of several seeds by item id.

        Raises BadInput, naming the ids, where two seeds do not cover the same items, and naming the field where their
        protocol signatures differ.
        """
        if len(scores) != len(seeds) or not scores:
            raise BadInput(f"{len(scores)} sets of scores were given for {len(seeds)} seeds; one each is needed")
        first = scores[0]
        order = aligned_order(first.ids)
        ids = tuple(first.ids[i] for i in order)
        rows = []
        for seed, one in zip(seeds, scores, strict=True):
            require_same_signature(first.signature, one.signature)
            own = aligned_order(one.ids)
            require_same_items(ids, tuple(one.ids[i] for i in own), f"seed {seeds[0]}", f"seed {seed}")
            rows.append(one.values[own])
        blocks = None
        if first.blocks is not None:
            blocks = np.unique(np.asarray(first.blocks)[order], return_inverse=True)[1]
        return cls(
            ids,
            np.stack(rows),
            tuple(seeds),
            first.signature,
            first.summary,
            first.higher_is_better,
            first.unit,
            None if first.weights is None else first.weights[order],
            None if first.targets is None else first.targets[order],
            blocks,
        )

    @property
    def value(self) -> float:
        """The summary of the mean over seeds; for a correlation the mean of the seeds' correlations."""
        if self.summary in ("mean", "exp_mean"):
            return summarize(self.values.mean(0), self.summary, self.weights)
        return float(np.mean([summarize(row, self.summary, targets=self.targets) for row in self.values]))


def aligned_order(ids: Sequence[str]) -> np.ndarray:
    """Positions that sort the ids; BadInput names ids that occur twice."""
    names = np.asarray(ids)
    order = np.argsort(names, kind="stable")
    twice = names[order][1:][names[order][1:] == names[order][:-1]]
    if len(twice):
        raise BadInput(f"item id {twice[0]!r} occurs twice ({len(twice)} such); every item needs its own id")
    return order


def require_same_items(first: tuple[str, ...], second: tuple[str, ...], first_name: str, second_name: str) -> None:
    if first == second:
        return
    lost, extra = sorted(set(first) - set(second)), sorted(set(second) - set(first))
    where, ids = (second_name, lost) if lost else (first_name, extra)
    shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
    raise BadInput(
        f"{first_name} and {second_name} were scored on different items: {where} lacks {len(ids)} ({shown}); "
        "only scores of the same items can be paired"
    )


def require_same_signature(first: str, second: str) -> None:
    """BadInput shows the fields in which two signatures differ."""
    if first == second:
        return
    one, two = first.split("|"), second.split("|")
    fields = [f"{a} / {b}" for a, b in zip(one, two, strict=False) if a != b] or [f"{first} / {second}"]
    raise BadInput(f"signatures differ in {', '.join(fields)}; only numbers of one protocol can be compared")
