"""Performance profiles over workloads (dolan2002benchmarking), scored as AlgoPerf does (dahl2023benchmarking)."""

from __future__ import annotations

import numpy as np

from harness.errors import BadInput

TAU_MAX = 4.0
"""AlgoPerf's horizon: four times the best method's time."""


def ratios_to_best(times: np.ndarray) -> np.ndarray:
    """Every method's time over the best on that workload, (workloads, methods); inf where the target was not reached.

    `times` are positive, inf where the target was not reached. Raises BadInput for others.
    """
    times = np.asarray(times, dtype=np.float64)
    if times.ndim != 2 or np.isnan(times).any() or (times <= 0).any():
        raise BadInput("times must be (workloads, methods), above 0, and inf where the target was not reached")
    best = times.min(1, keepdims=True)
    return np.divide(times, best, out=np.full_like(times, np.inf), where=np.isfinite(times))


def performance_profile(times: np.ndarray, taus: np.ndarray) -> np.ndarray:
    """Share of workloads on which a method takes at most tau times the best time: (methods, taus)."""
    return (ratios_to_best(times)[:, :, None] <= np.asarray(taus)).mean(0)


def profile_scores(times: np.ndarray, tau_max: float = TAU_MAX) -> np.ndarray:
    """Mean height of every method's profile between 1 and tau_max, in [0, 1]: (methods,).

    The profile is a step function, so that its integral is exact: each workload adds what is left of the horizon.
    """
    return (np.clip(tau_max - ratios_to_best(times), 0, None) / (tau_max - 1)).mean(0)
