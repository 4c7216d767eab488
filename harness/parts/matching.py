"""The budget matcher: the configuration whose count of trainable (or stored) numbers is nearest to what is granted.

"At equal parameters" is then a checked statement: what is left over is recorded with the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from harness.errors import BadInput

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Matched(Generic[Choice]):
    """A configuration, the numbers it has, and those that were granted."""

    choice: Choice
    numbers: int
    granted: int

    @property
    def log(self) -> dict[str, Any]:
        """For a record: `left` is what was granted and not used; below zero, what was used beyond it."""
        return {**asdict(self), "left": self.granted - self.numbers}


def match(granted: int, choices: Iterable[Choice], count: Callable[[Choice], int], what: str) -> Matched[Choice]:
    """The choice with the count nearest to `granted`, of two that are as near the smaller.

    Raises BadInput, naming `what` was to be chosen, when there is no choice.
    """
    counted = [(count(choice), choice) for choice in choices]
    if not counted:
        raise BadInput(f"no {what} fits the layers that are adapted; grant more numbers (`trainable`), or set it")
    numbers, choice = min(counted, key=lambda one: (abs(one[0] - granted), one[0]))
    return Matched(choice, numbers, granted)


def shared_out(total: int, weights: Sequence[float], most: Sequence[int]) -> list[int]:
    """Whole parts of `total` in proportion to the weights, none above its most, that add up to the total (or to all
    that there is room for). What rounding leaves goes to the largest remainders, the first of equal ones first."""
    parts, free = [0] * len(weights), set(range(len(weights)))
    left = min(total, sum(most))
    while left and free:
        scale = left / sum(weights[at] for at in free)
        wanted = {at: weights[at] * scale for at in sorted(free)}
        whole = {at: min(int(wanted[at]), most[at] - parts[at]) for at in wanted}
        for at, part in whole.items():
            parts[at] += part
        left -= sum(whole.values())
        free = {at for at in free if parts[at] < most[at]}
        if left < len(free):  # what is left is rounding
            for at in sorted(free, key=lambda one: (whole[one] - wanted[one], one))[:left]:
                parts[at] += 1
            left = 0
    return parts
