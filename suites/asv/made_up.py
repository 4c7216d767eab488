"""A suite's made-up records, for benchmarks of what is done with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness import Scores
from harness.engine.ledger import Ledger, open_ledger
from harness.engine.plan import Plan, Trial, plan_suite
from harness.engine.record import OK, Record, cost, summary_of
from harness.engine.suite import Suite, load_suite
from harness.tables.scope import metric_labels

SUITE = """\
suite: made-up
title: Made-up records
track: compress
models: [digits-vit]
problem: {calibration: {dataset: digits, split: train, samples: 8}}
methods: ["rtn(bits=[2, 3, 4, 8], group_size=[16, 32])", "gptq(bits=[2, 3, 4, 8], group_size=[16, 32])", dense]
metrics: ["top1(dataset=digits)"]
seeds: 5
baseline: rtn
"""
ITEMS = 500


def suite_in(folder: str) -> Suite:
    path = Path(folder) / "made-up.yaml"
    path.write_text(SUITE)
    return load_suite(path)


def plan(suite: Suite) -> Plan:
    return plan_suite(suite)


def records(suite: Suite) -> Iterator[tuple[Record, dict[str, Scores]]]:
    """A record for every trial, with scores of its items."""
    rng = np.random.default_rng(0)
    ids = [f"item:{at:04d}" for at in range(ITEMS)]
    label = metric_labels(suite.problems()[0])[0]
    for trial in plan(suite):
        scores = Scores(ids, (rng.random(ITEMS) < 0.9).astype(float), "top1|made-up|v:1", higher_is_better=True)
        yield _record(trial, label, scores), {label: scores}


def _record(trial: Trial, label: str, scores: Scores) -> Record:
    spent = {"wall_seconds": cost(1.0), "peak_memory_bytes": cost(1e9)}
    size = {"bits_per_weight": 4.25, "model_bytes": 2_000_000}
    return Record.of(trial, OK, metrics={label: summary_of(scores)}, size=size, cost=spent, environment="made-up")


def filled(folder: str) -> tuple[Suite, Ledger]:
    """The suite and a ledger that has all of it."""
    suite, ledger = suite_in(folder), open_ledger(str(Path(folder) / "ledger.db"))
    ledger.add_environment("made-up", {"harness": "made up", "cpu": "none", "packages": {}})
    for record, scores in records(suite):
        ledger.save(record, scores, suite=suite.name)
    return suite, ledger
