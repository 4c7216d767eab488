"""A ledger of made-up records for tests of the report: every kind of plot has something to show, and every text that
can hold something foreign does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from engine_toy import Toy

from harness import Scores
from harness.engine.ledger import Ledger, open_ledger
from harness.engine.plan import Trial, plan_suite
from harness.engine.record import FAILED, OK, Record, cost, summary_of
from harness.engine.suite import Suite, load_suite

EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
ITEMS = 24
LAYERS = [f"model.layers.{block}.{part}" for block in range(2) for part in ("up", "down")]
SUITE = f"""\
suite: toys
title: "Toys {EVIL}"
track: toy
problems:
  - {{model: one, size: 4}}
  - {{model: two, size: 4}}
methods: ["shift(by=[1, 2])", "shift(by=[1, 2], twice=true)", noise]
metrics: [error]
seeds: 3
baseline: shift(twice=false)
limits: {{seconds: 60}}
"""
SMALL = SUITE.replace("  - {model: two, size: 4}\n", "").replace(', "shift(by=[1, 2], twice=true)", noise', "")
"""One problem, two rows: quick to draw."""
HOME = {"harness": "0.1.0", "commit": "a" * 40, "cpu": f"CPU {EVIL}", "packages": {"torch": "2.0"}, "gpus": []}
AWAY = {**HOME, "commit": "b" * 40 + "+", "cpu": "another"}


def scores(trial: Trial) -> Scores:
    """Something of the item, the method and the seed; worse the more is shifted."""
    params = trial.point.params
    rng = np.random.default_rng([trial.seed, *map(ord, trial.label)])
    level = params["by"] * (2 if params["twice"] else 1) if "by" in params else 9.0
    values = np.random.default_rng(0).normal(10, 3, ITEMS) + level + rng.normal(0, 0.5, ITEMS)
    return Scores(
        [f"row:{at}" for at in range(ITEMS)], values, f"error|{EVIL}|v:1", unit="points", extra={"limit": 4.0}
    )


def log(trial: Trial) -> dict:
    """What a method tells of its work: errors by layer from one, a curve from the other."""
    if trial.point.method == "noise":
        curve = [{"step": step, "loss": 3.0, "dev_loss": 3.0 - 0.1 * step + 0.1 * trial.seed} for step in (0, 5, 10)]
        return {"curve": curve, "passes": {"forward": 10, "backward": 10}}
    return {name: {"weight_error": 0.01 * (at + 1) * (trial.seed + 1)} for at, name in enumerate(LAYERS)}


def record(trial: Trial, found: Scores, environment: str, **fields: object) -> Record:
    made = Record.of(
        trial,
        OK,
        metrics={"error": summary_of(found)},
        size={"bits_per_weight": 2.0 * trial.point.params.get("by", 4), "budget": {"codes": 12}},
        cost={"wall_seconds": cost(1.5 + trial.seed), "solve_seconds": cost(1.0), "peak_memory_bytes": cost(None)},
        environment=environment,
        log=log(trial),
    )
    return replace(made, created=1.7e9 + trial.seed, **fields)  # type: ignore[arg-type]


def fill(toy: Toy, text: str = SUITE) -> tuple[Suite, Ledger]:
    """A ledger in which the first method of every problem was made by two versions of its code, the last trial failed
    and another was never run."""
    suite = load_suite(toy.write(text))
    ledger = open_ledger(str(toy.folder / "ledger.db"))
    for name, body in (("home", HOME), ("away", AWAY)):
        ledger.add_environment(name, body)
    trials = list(plan_suite(suite))
    for trial in _older(trials):
        found = scores(trial)
        found = replace(found, values=found.values + 1)
        ledger.save(record(trial, found, "away", version="before"), {"error": found}, suite=suite.name)
    for trial in trials[:-2]:
        found = scores(trial)
        ledger.save(record(trial, found, "home"), {"error": found}, suite=suite.name)
    failed = Record.of(
        trials[-1], FAILED, reason=f"ValueError: {EVIL}", traceback=f"Traceback\n{EVIL}", environment="home"
    )
    ledger.save(replace(failed, created=1.7e9), {}, suite=suite.name)
    return suite, ledger


def _older(trials: list[Trial]) -> Iterator[Trial]:
    for trial in trials:
        if trial.point.params.get("by") == 1 and not trial.point.params["twice"]:
            yield replace(trial, point=replace(trial.point, version="before"))
