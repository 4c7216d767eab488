"""Scores of a search against a tabular benchmark of its space. The seed is the unit: architectures of one supernet are
not independent."""

from __future__ import annotations

import numpy as np

from harness.errors import BadInput
from harness.metrics.subject import Subject
from harness.registry import metric
from harness.scores import Scores
from harness.search.table import Score, Table

VERSION = 1


@metric(bounds=(-1, 1))
def kendall_tau(subject: Subject, *, of: Score = "loss") -> Scores:
    """Kendall's tau-b between the ranking that the search predicted and the benchmark's, over what it ranked.

    0 for a search that ranked fewer than two architectures, or all alike. One score a seed.
    """
    from scipy import stats

    table = _table(subject, "kendall_tau")
    quality, predicted = table.quality(of), subject.extra["predicted"]
    pairs = [(score, quality[arch]) for arch, score in predicted.items()]
    tau = float(stats.kendalltau(*zip(*pairs, strict=True)).statistic) if len(pairs) > 1 else 0.0
    value = tau if np.isfinite(tau) else 0.0
    return _one(table, f"kendall_tau|of:{of}", value, "tau", higher_is_better=True, ranked=float(len(pairs)))


@metric(bounds=(0, np.inf))
def regret(subject: Subject, *, of: Score = "accuracy") -> Scores:
    """How far the benchmark's score of the chosen architecture is below that of the best allowed one. One a seed."""
    table = _table(subject, "regret")
    quality = table.quality(of)
    best = max(quality[arch] for arch in subject.extra["allowed"])
    unit = "accuracy" if of == "accuracy" else "nats"
    return _one(table, f"regret|of:{of}", best - quality[subject.extra["arch"]], unit, higher_is_better=False)


def _table(subject: Subject, metric: str) -> Table:
    table = subject.extra.get("table")
    if table is None:
        raise BadInput(f"metric {metric} is for problems of the track search that name a `table`; this one does not")
    return table


def _one(table: Table, what: str, value: float, unit: str, higher_is_better: bool, **extra: float) -> Scores:
    return Scores(
        ids=[table.name],
        values=np.array([value]),
        signature=f"{what}|{table.name}@{table.hash[:12]}|v:{VERSION}",
        unit=unit,
        higher_is_better=higher_is_better,
        extra=extra,
    )
