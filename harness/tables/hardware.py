"""Which metrics depend on the machine they were taken on, and which machines are alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import BadInput

FIELDS = ("cpu", "simd", "cores", "gpus", "threads", "jobs")
"""What of an environment must be equal for times to be compared."""
_TIMES = {"s", "ms", "us", "µs", "ns", "min", "h", "J", "mJ", "kWh", "W"}
_RATE = "/s"


def depends_on_machine(unit: str) -> bool:
    """Whether a metric in this unit is a time, a rate or an energy.

    >>> [depends_on_machine(unit) for unit in ("ms", "tokens/s", "GB/s", "nats/token", "")]
    [True, True, True, False, False]
    """
    return unit in _TIMES or unit.endswith(_RATE)


def require_same_machine(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """BadInput shows the fields in which two environments differ."""
    fields = [name for name in FIELDS if first.get(name) != second.get(name)]
    if fields:
        differing = ", ".join(f"{name}: {_plain(first.get(name))} / {_plain(second.get(name))}" for name in fields)
        raise BadInput(f"hardware differs in {differing}; only times of one machine can be compared")


def require_one_machine(places: Sequence[Mapping[str, Any]]) -> None:
    """BadInput where the environments are not all of one machine."""
    for place in places[1:]:
        require_same_machine(places[0], place)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " + ".join(str(one.get("name", one)) if isinstance(one, dict) else str(one) for one in value) or "none"
    return value if isinstance(value, str) else json.dumps(value)
