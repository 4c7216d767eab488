"""Numbers with as many digits as they are known to."""

from __future__ import annotations

import math
from collections.abc import Sequence


def rounded(
    values: Sequence[float], low: float | None, high: float | None, *, signed: bool = False, digits: int = 4
) -> list[str]:
    """The values to the decimal place of the second significant digit of the interval's half width; to `digits`
    significant digits where there is no interval.

    >>> rounded([12.34567], 12.31, 12.37)
    ['12.346']
    >>> rounded([98765.4], 90_000, 110_000)
    ['99000']
    """
    return [_fixed(value, _place(value, low, high, digits), signed) for value in values]


def _place(value: float, low: float | None, high: float | None, digits: int) -> int:
    """How many decimals to show; negative rounds to tens, hundreds..."""
    if low is not None and high is not None and math.isfinite(high - low) and high > low:
        return 1 - _exponent((high - low) / 2, 2)
    if not math.isfinite(value) or value == 0:
        return 0
    return max(digits - 1 - _exponent(value, digits), 0)


def _exponent(value: float, digits: int) -> int:
    """The power of ten of a number once it is rounded to so many digits (0.0996 to two digits is 0.10)."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _fixed(value: float, place: int, signed: bool) -> str:
    if not math.isfinite(value):
        return str(value)
    value = round(value, place) + 0.0  # no minus zero
    if abs(value) >= 1e7 or place > 9:
        return f"{value:+.3g}" if signed else f"{value:.3g}"
    return f"{value:{'+' if signed else ''}.{max(place, 0)}f}"


def p_value(value: float) -> str:
    """A p value as tables and sentences print it."""
    return f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"
