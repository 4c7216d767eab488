"""Learning-rate schedules: functions of (step, total) that return the factor on the base rate of update `step`."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int, int], float]


def constant(step: int, total: int) -> float:
    """Always 1."""
    return 1.0


def linear(*, warmup: int = 0, end: float = 0.0) -> Schedule:
    """Up to 1 over `warmup` steps, then straight down to `end`."""
    return _warmed(warmup, lambda t: 1 - (1 - end) * t)


def cosine(*, warmup: int = 0, end: float = 0.0) -> Schedule:
    """Up to 1 over `warmup` steps, then half a cosine down to `end` (Loshchilov and Hutter 2017)."""
    return _warmed(warmup, lambda t: end + (1 - end) * (1 + math.cos(math.pi * t)) / 2)


def warmup_stable_decay(*, warmup: int = 0, decay: float = 0.2, end: float = 0.0) -> Schedule:
    """Up to 1 over `warmup` steps, then 1, then straight down to `end` over the last `decay` part (Hu et al. 2024)."""
    return _warmed(warmup, lambda t: 1 - (1 - end) * max(0.0, 1 - (1 - t) / decay) if decay else 1.0)


def _warmed(warmup: int, shape: Callable[[float], float]) -> Schedule:
    """`shape` over [0, 1] after the warm-up; the update after the last would have the factor `shape(1)`."""

    def factor(step: int, total: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return shape((step - warmup) / max(1, total - warmup))

    return factor
