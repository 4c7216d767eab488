"""The figures of one metric for all rows of a table: intervals and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.errors import BadInput
from harness.registry import UNBOUNDED
from harness.scores import LOGARITHMIC
from harness.stats import Comparison, Interval, ScoreSet, compare_all, intervals
from harness.stats.scoreset import require_same_items, require_same_signature
from harness.stats.significance import Correction

CONFIDENCE, RESAMPLES, ALPHA = 0.95, 10_000, 0.05


@dataclass(frozen=True)
class Compared:
    """What a row's metric comes to, or why it comes to nothing."""

    scores: ScoreSet | None = None
    interval: Interval | None = None
    difference: Comparison | None = None
    problem: str = ""


def evaluate(
    sets: Sequence[ScoreSet | None],
    partners: Sequence[int | None],
    margin: float | None = None,
    correction: Correction = "holm",
    bounds: tuple[float, float] = UNBOUNDED,
) -> list[Compared]:
    """Interval of every row, cut at `bounds`, and its difference to the row that `partners` gives it.

    Pairs are compared on the seeds that both rows have. Rows that cannot be paired (other items, another protocol)
    say why in `problem`.
    """
    found = [Compared(one) for one in sets]
    present = {at: one for at, one in enumerate(sets) if one is not None}
    for at, estimate in intervals(present, CONFIDENCE, RESAMPLES).items():
        low, high = max(estimate.low, bounds[0]), min(estimate.high, bounds[1])
        found[at] = replace(found[at], interval=replace(estimate, low=low, high=high))
    for at, result in _differences(present, partners, margin, correction).items():
        key = "problem" if isinstance(result, str) else "difference"
        found[at] = replace(found[at], **{key: result})  # type: ignore[arg-type]
    return found


def _differences(
    present: Mapping[int, ScoreSet], partners: Sequence[int | None], margin: float | None, correction: Correction
) -> dict[int, Comparison | str]:
    """Rows with the same partner and the same seeds share one draw and one Holm correction."""
    families: dict[tuple[int, tuple[int, ...]], dict[str, ScoreSet]] = {}
    found: dict[int, Comparison | str] = {}
    for at, one in present.items():
        partner = partners[at]
        if partner is None or partner not in present:
            continue
        base = present[partner]
        try:
            common = _common_seeds(one, base)
        except BadInput as error:
            found[at] = str(error)
        else:
            families.setdefault((partner, common), {})[str(at)] = _on_seeds(one, common)
    for (partner, common), rows in families.items():
        base = _on_seeds(present[partner], common)
        compared = compare_all(
            rows, base, margin_of_difference(base, margin), resamples=RESAMPLES, correction=correction
        )
        found |= {int(at): one for at, one in compared.items()}
    return found


def _common_seeds(one: ScoreSet, base: ScoreSet) -> tuple[int, ...]:
    """The seeds on which a row is paired with its baseline. Raises BadInput where they cannot be paired."""
    require_same_signature(base.signature, one.signature)
    require_same_items(base.ids, one.ids, "the baseline", "this row")
    common = tuple(seed for seed in one.seeds if seed in base.seeds)
    if not common:
        raise BadInput("no seed was finished by both this row and its baseline")
    return common


def _on_seeds(scores: ScoreSet, seeds: tuple[int, ...]) -> ScoreSet:
    rows = [scores.seeds.index(seed) for seed in seeds]
    return replace(scores, values=scores.values[rows], seeds=seeds)


def margin_of_difference(base: ScoreSet, margin: float | None) -> float | None:
    """A margin in the metric's unit, in that of the difference: for an `exp_mean` the logarithm's, at the baseline."""
    return float(np.log1p(margin / base.value)) if margin is not None and base.summary in LOGARITHMIC else margin
