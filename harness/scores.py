"""What a metric gives back: one score per item, how items make one number, and the protocol they were taken under."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Summary = Literal["mean", "exp_mean", "median", "exp_median", "spearman", "pearson"]
"""How per-item scores become one number.

`mean`: sum(values * weights) / sum(weights); `exp_mean`: the exponential of that (perplexity, from summed negative
log-likelihoods per token); `median`, and `exp_median`, the exponential of that: of repeated times, and of their ratios'
logarithms; `spearman`, `pearson`: correlation of `values` with `targets`.
"""
LOGARITHMIC = ("exp_mean", "exp_median")
"""Summaries that are compared by the difference of their logarithms."""


@dataclass(frozen=True)
class Scores:
    """Per-item scores of one metric.

    `ids` are stable names of the items (never positions), `values` one score each, already divided by the item's
    weight (a per-token mean for a text window); `weights` its size (tokens; 1 by default); `targets` the reference
    values for a correlation. `blocks` names the unit that is resampled when neighbouring items depend on each other
    (a document); one per item. `nested` says that the items of each seed are its own (episodes, generated samples,
    random splits): then only their summary is compared, and the seed is the unit.
    """

    ids: Sequence[str]
    values: np.ndarray
    signature: str
    summary: Summary = "mean"
    unit: str = ""
    higher_is_better: bool = False
    weights: np.ndarray | None = None
    targets: np.ndarray | None = None
    blocks: Sequence[str] | None = None
    extra: dict[str, float] = field(default_factory=dict)
    nested: bool = False

    def __post_init__(self) -> None:
        for name in ("values", "weights", "targets"):
            value = getattr(self, name)
            if value is not None:
                value = np.ascontiguousarray(value, dtype=np.float64)
                object.__setattr__(self, name, value)
                if value.shape != (len(self.ids),):
                    raise ValueError(f"{name} has shape {value.shape}; {len(self.ids)} items were named")
        if len(set(self.ids)) != len(self.ids):
            twice = [one for one, count in Counter(self.ids).items() if count > 1]
            raise ValueError(f"item ids are not unique: {', '.join(map(repr, twice[:3]))} ({len(twice)} such)")

    @property
    def value(self) -> float:
        """The summary over all items."""
        return summarize(self.values, self.summary, self.weights, self.targets)


def summarize(
    values: np.ndarray, summary: Summary, weights: np.ndarray | None = None, targets: np.ndarray | None = None
) -> float:
    """One number from per-item scores of shape (items,); see `Summary`."""
    if summary in ("mean", "exp_mean"):
        mean = float(np.average(values, weights=weights))
        return mean if summary == "mean" else float(np.exp(mean))
    if summary in ("median", "exp_median"):
        middle = float(np.median(values))
        return middle if summary == "median" else float(np.exp(middle))
    if targets is None:
        raise ValueError(f"summary {summary} needs targets")
    from scipy import stats

    result = stats.spearmanr(values, targets) if summary == "spearman" else stats.pearsonr(values, targets)
    return float(result.statistic)
