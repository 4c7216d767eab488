"""What a latency trial measured, as its metrics and its record read it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.latency.rounds import Rounds, spread
from harness.stats import Ratio, paired_ratio

NOISY = 0.1
"""Spread of the rounds (half the distance of their quartiles over their median) above which a table says so."""


@dataclass(frozen=True)
class Timing:
    """Rounds of a method and of the baseline. `phase` is the one that counts (a product, or a token), in which each
    input has `rows` rows; `limit` (rounds,) are the seconds that it would take at the machine's ceilings. `signature`
    is the protocol with the machine. `memory` are the bytes that the method's model alone adds to the process while it
    runs; None where that cannot be read."""

    rounds: Rounds
    phase: str
    rows: int
    limit: np.ndarray
    signature: str
    memory: float | None = None

    def seconds(self, phase: str | None = None) -> np.ndarray:
        """The median of each round, (rounds,)."""
        return np.median(self.rounds.method[phase or self.phase], axis=1)

    def log_speedups(self, phase: str | None = None) -> np.ndarray:
        """ln(baseline / method) of each round, (rounds,): its median is that of `paired_ratio`."""
        baseline = np.median(self.rounds.baseline[phase or self.phase], axis=1)
        return np.log(baseline) - np.log(self.seconds(phase))

    def ratio(self, phase: str | None = None) -> Ratio:
        """The speedup with its interval and its test. Raises BadInput for fewer than six rounds."""
        name = phase or self.phase
        return paired_ratio(self.rounds.baseline[name], self.rounds.method[name])

    @property
    def of_limit(self) -> np.ndarray:
        """Percent of the limit in each round, (rounds,)."""
        return 100 * self.limit / self.seconds()

    @property
    def spread(self) -> float:
        """How much the rounds differ, of the method or the baseline, whichever differ more."""
        return max(spread(self.rounds.method[self.phase]), spread(self.rounds.baseline[self.phase]))
