"""Which rows of a metric are the best of their group, and which cannot be told from the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from harness.errors import BadInput
from harness.stats import ScoreSet
from harness.stats.resample import Units
from harness.stats.scoreset import require_pairable
from harness.stats.significance import Correction, adjust, paired_permutation
from harness.stats.verdict import score_units
from harness.tables.model import BEST, TIED
from harness.tables.statistics import ALPHA, RESAMPLES


def groups(partners: Sequence[int | None], roles: Sequence[str]) -> list[list[int]]:
    """Rows that are ranked together: a row of the baseline with all that are compared with it, and the rows that have
    no baseline among themselves. References are not ranked."""
    bases = {partner for partner in partners if partner is not None}
    found: dict[int | None, list[int]] = {}
    for at, (partner, role) in enumerate(zip(partners, roles, strict=True)):
        if role != "reference":
            found.setdefault(at if at in bases else partner, []).append(at)
    return list(found.values())


def mark(sets: Mapping[int, ScoreSet], group: Sequence[int], correction: Correction = "holm") -> dict[int, str]:
    """The marks of a group's rows: `BEST`, and `TIED` where the paired permutation test against the best row, with
    Holm's correction over the group, finds no difference.

    Rows are compared on the seeds that all of them have. Rows that cannot be paired with the best (other items,
    another protocol) have no mark; nor has anything where fewer than two rows can be compared.
    """
    rows = {at: sets[at] for at in group if at in sets}
    common = [seed for seed in next(iter(rows.values())).seeds if _in_all(seed, rows)] if rows else []
    if len(rows) < 2 or not common:
        return {}
    rows = {at: one.on_seeds(common) for at, one in rows.items()}
    sign = 1 if next(iter(rows.values())).higher_is_better else -1
    best = max(rows, key=lambda at: sign * rows[at].value)
    others = [at for at, one in rows.items() if at != best and _pairable(rows[best], one)]
    if not others:
        return {}
    base = score_units(rows[best])
    pairs = [Units(score_units(rows[at]).sums - base.sums, base.weights) for at in others]
    chances = adjust(paired_permutation(pairs, np.random.default_rng(0), RESAMPLES), correction)
    return {best: BEST, **{at: TIED for at, p in zip(others, chances, strict=True) if p >= ALPHA}}


def _in_all(seed: int, rows: Mapping[int, ScoreSet]) -> bool:
    return all(seed in one.seeds for one in rows.values())


def _pairable(best: ScoreSet, one: ScoreSet) -> bool:
    with suppress(BadInput):
        require_pairable(best, one, "the best row", "this row")
        return True
    return False
