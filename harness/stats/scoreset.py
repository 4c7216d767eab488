"""Scores of one method over seeds and items, aligned by item id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from harness.errors import BadInput
from harness.scores import Scores, Summary, summarize


@dataclass(frozen=True)
class ScoreSet:
    """Per-item scores of one method under several seeds.

    `values` is (seeds S, items N), `weights` and `targets` are (N,), `blocks` (N,) integer codes of the unit of
    resampling (a document); all items are in the order of `ids`, which is sorted. Where every seed has items of its own
    (`nested`), the seed is the unit: there is one value a seed, its summary, and `items_of` keeps which items it is of.
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
    items_of: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def stack(cls, scores: Sequence[Scores], seeds: Sequence[int]) -> ScoreSet:
        """Align the scores of several seeds by item id; of nested ones keep a summary each, unless there is one seed.

        Raises BadInput where a seed is named twice, where two seeds do not cover the same items (naming the ids), where
        their signatures, weights, targets or blocks differ (naming the field), and where a score is not finite.
        """
        if len(scores) != len(seeds) or not scores:
            raise BadInput(f"{len(scores)} sets of scores were given for {len(seeds)} seeds; one each is needed")
        twice = [seed for at, seed in enumerate(seeds) if seed in seeds[:at]]
        if twice:
            raise BadInput(f"seed {twice[0]} was given twice; every seed can be counted once")
        orders: dict[int, tuple[np.ndarray, tuple[str, ...]]] = {}
        for taken in scores:
            if id(taken.ids) not in orders:  # a ledger gives all scores of the same items the same list
                order = aligned_order(taken.ids)
                orders[id(taken.ids)] = order, tuple(taken.ids[at] for at in order)
        sets = [_one_seed(one, seed, *orders[id(one.ids)]) for one, seed in zip(scores, seeds, strict=True)]
        if len(sets) > 1 and any(one.nested for one in scores):
            sets = [_seed_as_unit(one) for one in sets]
        for one in sets[1:]:
            require_pairable(sets[0], one, f"seed {seeds[0]}", f"seed {one.seeds[0]}")
        items_of = {seed: ids for one in sets for seed, ids in one.items_of.items()}
        values = np.concatenate([one.values for one in sets])
        return replace(sets[0], values=values, seeds=tuple(seeds), items_of=items_of)

    @property
    def value(self) -> float:
        """The summary of the mean over seeds; for a correlation the mean of the seeds' correlations."""
        if self.summary in ("mean", "exp_mean"):
            return summarize(self.values.mean(0), self.summary, self.weights)
        return float(np.mean([summarize(row, self.summary, targets=self.targets) for row in self.values]))

    def on_seeds(self, seeds: Sequence[int]) -> ScoreSet:
        """The same scores with these seeds only, in this order. Raises BadInput where one is missing."""
        missing = [seed for seed in seeds if seed not in self.seeds]
        if missing:
            raise BadInput(f"there are no scores of seed {missing[0]}; there are seeds {_listed(self.seeds)}")
        rows = [self.seeds.index(seed) for seed in seeds]
        return replace(self, values=self.values[rows], seeds=tuple(seeds))


ALL_ITEMS = "all items of the seed"
"""The id of the only item where the seed is the unit."""


def _one_seed(scores: Scores, seed: int, order: np.ndarray, ids: tuple[str, ...]) -> ScoreSet:
    if not ids:
        raise BadInput(f"seed {seed} has no scored items; at least one is needed")
    values = scores.values[order]
    lost = np.flatnonzero(~np.isfinite(values))
    if len(lost):
        raise BadInput(
            f"seed {seed}: item {ids[lost[0]]!r} has score {values[lost[0]]} ({len(lost)} such); "
            "statistics need finite scores"
        )
    blocks = None if scores.blocks is None else np.unique(np.asarray(scores.blocks)[order], return_inverse=True)[1]
    return ScoreSet(
        ids, values[None], (seed,), scores.signature, scores.summary, scores.higher_is_better, scores.unit,
        None if scores.weights is None else scores.weights[order],
        None if scores.targets is None else scores.targets[order],
        blocks,
    )  # fmt: skip


def _seed_as_unit(one: ScoreSet) -> ScoreSet:
    """One seed's items summed up: its mean (for an `exp_mean` that of the logarithm), median or correlation."""
    if one.summary in ("mean", "exp_mean"):
        value, summary = summarize(one.values[0], "mean", one.weights), one.summary
    elif one.summary == "exp_median":
        value, summary = summarize(one.values[0], "median"), "exp_mean"
    else:
        value, summary = one.value, "mean"
    return replace(
        one, ids=(ALL_ITEMS,), values=np.array([[value]]), summary=summary, weights=None, targets=None, blocks=None,
        items_of={one.seeds[0]: one.ids},
    )  # fmt: skip


def aligned_order(ids: Sequence[str]) -> np.ndarray:
    """Positions that sort the ids; BadInput names ids that occur twice."""
    names = np.asarray(ids)
    order = np.argsort(names, kind="stable")
    twice = names[order][1:][names[order][1:] == names[order][:-1]]
    if len(twice):
        raise BadInput(f"item id {twice[0]!r} occurs twice ({len(twice)} such); every item needs its own id")
    return order


def require_pairable(first: ScoreSet, second: ScoreSet, first_name: str, second_name: str) -> None:
    """BadInput unless both are of one protocol, the same items, and the same weights, targets and blocks of them."""
    require_same_signature(first.signature, second.signature)
    if bool(first.items_of) != bool(second.items_of):
        one, other = (first_name, second_name) if second.items_of else (second_name, first_name)
        raise BadInput(
            f"{one} has one seed and {other} several, each with items of its own; give both the same seeds, two or more"
        )
    require_same_items(first.ids, second.ids, first_name, second_name)
    for seed in first.items_of.keys() & second.items_of.keys():
        of_seed = f" (seed {seed})"
        require_same_items(first.items_of[seed], second.items_of[seed], first_name + of_seed, second_name + of_seed)
    for name in ("summary", "higher_is_better"):
        if getattr(first, name) != getattr(second, name):
            raise BadInput(f"{first_name} and {second_name} differ in {name}: they are not the same metric")
    for name in ("weights", "targets", "blocks"):
        one, two = getattr(first, name), getattr(second, name)
        if (one is None) != (two is None) or (one is not None and not np.array_equal(one, two)):
            raise BadInput(f"{first_name} and {second_name} have different {name} for the same items")


def require_same_items(first: tuple[str, ...], second: tuple[str, ...], first_name: str, second_name: str) -> None:
    """BadInput names the items that one of the two lacks."""
    if first == second:
        return
    lost, extra = sorted(set(first) - set(second)), sorted(set(second) - set(first))
    where, ids = (second_name, lost) if lost else (first_name, extra)
    raise BadInput(
        f"{first_name} and {second_name} were scored on different items: {where} lacks {len(ids)} ({_listed(ids)}); "
        "only scores of the same items can be paired"
    )


def require_same_signature(first: str, second: str) -> None:
    """BadInput shows the fields in which two signatures differ."""
    if first == second:
        return
    one, two = first.split("|"), second.split("|")
    fields = [f"{a} / {b}" for a, b in zip(one, two, strict=False) if a != b] or [f"{first} / {second}"]
    raise BadInput(f"signatures differ in {', '.join(fields)}; only numbers of one protocol can be compared")


def require_same_seeds(first: ScoreSet, second: ScoreSet, first_name: str, second_name: str) -> None:
    """BadInput names both sets of seeds where they differ."""
    if set(first.seeds) != set(second.seeds):
        raise BadInput(
            f"{first_name} has seeds {_listed(first.seeds)}, {second_name} {_listed(second.seeds)}; "
            "seeds are paired: compare on those that both have"
        )


def _listed(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:3])) + (", ..." if len(items) > 3 else "")
