"""One trial in this process: what it leaves, and what becomes of everything that goes wrong in it."""

from __future__ import annotations

import random

import numpy as np
import pytest
from engine_toy import Toy, toy_fixture  # noqa: F401

from harness import registry
from harness.engine.plan import Trial, plan_suite
from harness.engine.record import FAILED, MEMORY, OK, Outcome
from harness.engine.suite import load_suite
from harness.engine.trial import run_trial


def trials(toy: Toy, limit: int | None = None, **changes: str) -> list[Trial]:
    return list(plan_suite(load_suite(toy.write(**changes)), limit=limit))


def trouble(toy: Toy, kind: str) -> Outcome:
    return run_trial(trials(toy, methods=f'["trouble(kind={kind})"]', seeds="1")[0])


def test_a_trial_leaves_metrics_scores_size_and_cost(toy: Toy) -> None:
    trial = trials(toy, methods='["shift(by=3)"]', metrics='[error, "error(power=2)"]')[0]
    outcome = run_trial(trial)
    record = outcome.record
    assert (record.hash, record.status, record.reason, record.traceback) == (trial.hash, OK, "", "")
    assert (record.method, record.given, record.params) == ("shift", {"by": 3}, {"by": 3, "twice": False})
    assert record.metrics["error"] == {
        "value": 3.0, "unit": "1", "higher_is_better": False, "summary": "mean", "signature": "error|power:1|v:1",
        "items": 4, "nested": False, "extra": {},
    }  # fmt: skip
    assert record.metrics["error(power=2)"]["value"] == 9.0
    assert list(outcome.scores["error"].values) == [3.0] * 4
    assert record.size == {"model_bytes": 32}
    kinds = {name: figure["kind"] for name, figure in record.cost.items()}
    assert kinds["wall_seconds"] == kinds["cpu_seconds"] == kinds["solve_seconds"] == "measured"
    assert kinds["peak_device_bytes"] == "missing"
    assert record.cost["peak_device_bytes"]["value"] is None
    assert 0 < record.cost["solve_seconds"]["value"] <= record.cost["wall_seconds"]["value"]
    assert record.cost["peak_memory_bytes"]["value"] > 1e6


def test_the_seed_decides_every_draw(toy: Toy) -> None:
    first, second = trials(toy, methods="[noise]")
    values = [run_trial(trial).scores["error"].values for trial in (first, second, first)]
    assert np.array_equal(values[0], values[2])
    assert not np.array_equal(values[0], values[1])


def test_global_generators_start_the_same_for_a_trial(toy: Toy) -> None:
    one, other = trials(toy, methods="[noise]")
    draws = []
    for trial in (one, other, one):
        run_trial(trial)
        draws.append((random.random(), np.random.random()))  # noqa: NPY002
    assert draws[0] == draws[2] != draws[1]


def test_the_limit_is_handed_to_the_metrics(toy: Toy) -> None:
    outcome = run_trial(trials(toy, limit=2)[0])
    assert len(outcome.scores["error"].ids) == outcome.record.metrics["error"]["items"] == 2


FAILURES = {
    "error": (FAILED, "ZeroDivisionError: nothing to divide by", ""),
    "fail": (FAILED, "it did not converge", ""),
    "refuse": (FAILED, "layer a: 5 columns are not a multiple of group_size=2", "solve"),
    "nan": (FAILED, "error: 4 of 4 items are not finite, the first is row:0", ""),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_what_goes_wrong_is_recorded(toy: Toy, kind: str) -> None:
    outcome = trouble(toy, kind)
    assert (outcome.record.status, outcome.record.reason, outcome.refused) == FAILURES[kind]
    assert outcome.record.traceback.startswith("Traceback")
    assert outcome.record.metrics == outcome.scores == {}
    assert outcome.record.cost["wall_seconds"]["value"] > 0


def test_a_problem_that_cannot_be_built_is_told_apart(toy: Toy) -> None:
    outcome = run_trial(trials(toy, problem="{size: 0}")[0])
    assert (outcome.refused, outcome.record.reason) == ("build", "toy: size is 0; it takes at least 1 row")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_want_of_memory_is_told_apart(toy: Toy, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    trial = trials(toy)[0]

    def solve(*_: object) -> None:
        raise error

    from harness.engine.tracks import track_module

    monkeypatch.setattr(track_module("toy"), "solve", solve)
    assert run_trial(trial).record.status == MEMORY


def test_a_source_that_changed_since_the_plan_is_refused(toy: Toy) -> None:
    trial = trials(toy)[0]
    source = toy.code / "toy_methods" / "shift.py"
    source.write_text(source.read_text().replace("+ by", "- by"))
    toy.reload()
    registry.discover()
    outcome = run_trial(trial)
    assert outcome.refused == "start"
    assert outcome.record.reason == "the source of method shift changed while the suite was running; run it again"
    assert toy.runs() == []
