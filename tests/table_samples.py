"""A ledger of made-up records of the toy suite, for tests of what is made of records."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from engine_toy import Toy

from harness import Scores
from harness.engine.ledger import Ledger, open_ledger
from harness.engine.plan import Trial, digest, plan_suite
from harness.engine.record import FAILED, OK, Record, cost, summary_of
from harness.engine.suite import load_suite
from harness.tables.build import Scope

ITEMS = 40
SUITE = """\
suite: toys
title: Toys
track: toy
models: [one]
problem: {size: 4}
methods: ["shift(by=[1, 2])", "shift(by=[1, 2], twice=true)"]
metrics: [error, "error(power=2)"]
seeds: 3
baseline: shift(twice=false)
"""


def scores(values: np.ndarray, *, signature: str = "error|v:1", summary: str = "mean", items: int = ITEMS) -> Scores:
    return Scores([f"row:{at}" for at in range(items)], values, signature, summary, unit="1")  # type: ignore[arg-type]


def draw(trial: Trial, power: int) -> np.ndarray:
    """Scores with something of the item, the method and the seed in them."""
    rng = np.random.default_rng([trial.seed, *map(ord, str(trial.point)), power])
    items = np.random.default_rng(0).normal(10, 3, ITEMS)
    return items + trial.point.params["by"] * (2 if trial.point.params["twice"] else 1) + rng.normal(0, 0.5, ITEMS)


@pytest.fixture(name="quick")
def quick_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few resamples, for tests of what does not depend on how many there are."""
    for module in ("tables.build", "tables.compare"):
        importlib.import_module(f"harness.{module}")  # they keep the number that is told
    for module in ("tables.statistics", "tables.control", "tables.ranking", "claims"):
        monkeypatch.setattr(importlib.import_module(f"harness.{module}"), "RESAMPLES", 400)


Change = Callable[[Trial, Scores], Scores]


def fill(
    toy: Toy,
    text: str = SUITE,
    skip: tuple[str, ...] = (),
    fail: tuple[str, ...] = (),
    change: Change = lambda trial, taken: taken,
    place: Callable[[Trial], dict[str, Any]] = lambda trial: {},
) -> tuple[Scope, Ledger]:
    """A ledger with made-up records of a suite's trials. `skip` and `fail` name trials by their label, `change` makes
    other scores of those that were drawn, and `place` says what a trial ran on."""
    suite = load_suite(toy.write(text))
    ledger = open_ledger(str(toy.folder / "ledger.db"))
    for trial in plan_suite(suite):
        if trial.label in skip:
            continue
        if trial.label in fail:
            ledger.save(Record.of(trial, FAILED, reason="it did not converge"), {}, suite=suite.name)
            continue
        drawn = {call.label: scores(draw(trial, call.params["power"])) for call in trial.metrics}
        found = {label: change(trial, one) for label, one in drawn.items()}
        where = place(trial)
        if where:
            ledger.add_environment(digest(where), where)
        record = Record.of(
            trial,
            OK,
            metrics={label: summary_of(one) for label, one in found.items()},
            size={"bits_per_weight": 4.25, "model_bytes": 2_000_000},
            environment=digest(where) if where else "",
            cost={"wall_seconds": cost(1.0 + trial.seed), "peak_memory_bytes": cost(3e8 + trial.seed)},
        )
        ledger.save(record, found, suite=suite.name)
    return Scope.of(suite), ledger
