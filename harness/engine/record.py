"""What a trial leaves behind, and how a worker hands it over."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.engine.plan import Trial
from harness.scores import Scores

OK, FAILED, TIMEOUT, MEMORY = "ok", "failed", "timeout", "memory"
"""How a trial ended. All but the first are failures; the last two passed a limit."""


def cost(value: float | None, kind: str = "measured") -> dict[str, Any]:
    """One figure of a trial's cost: `measured`, a `proxy` for what could not be measured alone, or `missing`."""
    return {"value": value, "kind": kind if value is not None else "missing"}


@dataclass(frozen=True)
class Record:
    """The result of one trial, without its per-item scores.

    `metrics` maps a metric's label to its value, unit, direction, summary, signature, number of items and extra
    figures; `size` is the track's accounting; `cost` maps a figure (wall_seconds, solve_seconds, cpu_seconds,
    peak_memory_bytes, peak_device_bytes, energy_joules) to its value and kind; `log` is what the method tells of its
    work (figures by layer, a training curve, passes taken) and the tries of `tuning`; `environment` is a hash that the
    ledger resolves; `created` is in seconds since 1970, UTC.
    """

    hash: str
    cell: str
    track: str
    method: str
    version: str
    given: dict[str, Any]
    params: dict[str, Any]
    spec: dict[str, Any]
    content: dict[str, str]
    model: str | None
    seed: int
    limit: int | None
    status: str
    reason: str = ""
    traceback: str = ""
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    size: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, dict[str, Any]] = field(default_factory=dict)
    log: dict[str, Any] = field(default_factory=dict)
    environment: str = ""
    created: float = 0.0

    @classmethod
    def of(cls, trial: Trial, status: str, **fields: Any) -> Record:
        """The record of a trial that ended now."""
        point = trial.point
        return cls(
            trial.hash, trial.cell, trial.track, point.method, point.version, point.given, point.params, trial.spec,
            trial.content, trial.model, trial.seed, trial.limit, status, created=time.time(), **fields,
        )  # fmt: skip


def summary_of(scores: Scores) -> dict[str, Any]:
    """What a record keeps of a metric beside its per-item scores."""
    return {
        "value": scores.value,
        "unit": scores.unit,
        "higher_is_better": scores.higher_is_better,
        "summary": scores.summary,
        "signature": scores.signature,
        "items": len(scores.ids),
        "nested": scores.nested,
        "extra": {name: value if math.isfinite(value) else None for name, value in scores.extra.items()},
    }


@dataclass(frozen=True)
class Outcome:
    """A trial that ended: its record, the scores of its metrics by label, and `refused`: the stage that found its
    input bad (`start`, `build`, `solve`, `metrics`), or an empty string."""

    record: Record
    scores: dict[str, Scores] = field(default_factory=dict)
    refused: str = ""

    def to_json(self) -> str:
        """One line; raises ValueError for a figure that is not finite."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False, default=_encode)

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        fields = json.loads(text, object_hook=_decode)
        scores = {label: Scores(**taken) for label, taken in fields["scores"].items()}
        return cls(Record(**fields["record"]), scores, fields["refused"])


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"float64": base64.b64encode(np.asarray(value, "<f8").tobytes()).decode()}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be part of a record")


def _decode(value: dict[str, Any]) -> Any:
    return np.frombuffer(base64.b64decode(value["float64"]), "<f8") if value.keys() == {"float64"} else value
