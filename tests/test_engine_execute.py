"""Worker processes: limits, deaths, and what they may not do to their parent."""

from __future__ import annotations

import time

import psutil
import pytest
from engine_toy import Toy, toy_fixture  # noqa: F401

from harness.engine.execute import execute
from harness.engine.plan import plan_suite
from harness.engine.record import FAILED, MEMORY, OK, TIMEOUT, Record
from harness.engine.suite import load_suite


def run(toy: Toy, *methods: str, jobs: int = 1, **changes: str) -> list[Record]:
    """The records of methods, one seed each, in the order they ended."""
    quoted = ", ".join(f'"{method}"' for method in methods)
    trials = plan_suite(load_suite(toy.write(methods=f"[{quoted}]", seeds="1", **changes)))
    return [one.record for one in execute(iter(trials), jobs=jobs, threads=1) if one is not None]


def ends(records: list[Record]) -> list[tuple[str, str]]:
    return [(one.status, one.reason) for one in records]


def left_behind() -> list[psutil.Process]:
    """Processes of this test that should be gone."""
    signs = ("harness.engine.worker", "left-behind")
    found = psutil.Process().children(recursive=True)
    running = [one for one in found if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in running if any(sign in " ".join(one.cmdline()) for sign in signs)]


def test_scores_come_back_from_a_worker(toy: Toy) -> None:
    trials = plan_suite(load_suite(toy.write(methods='["shift(by=2)"]', seeds="1")))
    (outcome,) = [one for one in execute(iter(trials), jobs=1, threads=1) if one is not None]
    assert outcome.record.status == OK
    assert list(outcome.scores["error"].values) == [2.0] * 4
    assert list(outcome.scores["error"].ids) == ["row:0", "row:1", "row:2", "row:3"]
    assert left_behind() == []


def test_a_worker_that_dies_fails_its_trial_only(toy: Toy) -> None:
    records = run(toy, "trouble(kind=kill)", "shift", "trouble(kind=exit)", "noise", "trouble(kind=error)")
    assert ends(records) == [
        (FAILED, "worker killed by signal 9"),
        (OK, ""),
        (FAILED, "worker ended with status 7"),
        (OK, ""),
        (FAILED, "ZeroDivisionError: nothing to divide by"),
    ]
    assert records[2].traceback == "last words\n"
    assert left_behind() == []


def test_a_worker_serves_many_trials(toy: Toy) -> None:
    """Imports are paid once: twenty trials take less than twenty starts of a process."""
    started = time.perf_counter()
    run(toy, "shift")
    once = time.perf_counter() - started
    started = time.perf_counter()
    assert len(run(toy, f"shift(by={list(range(20))})")) == 20
    assert time.perf_counter() - started < 10 * once


def test_the_time_limit_ends_a_trial(toy: Toy) -> None:
    started = time.perf_counter()
    records = run(toy, "trouble(seconds=60)", "shift", limits="{seconds: 0.5}")
    assert time.perf_counter() - started < 30
    assert [one.status for one in records] == [TIMEOUT, OK]
    assert records[0].reason.startswith("ran 0.")
    assert records[0].reason.endswith(" s; the limit is 0.5 s")
    assert records[0].cost["wall_seconds"]["value"] > 0.5
    assert left_behind() == []


def test_the_memory_limit_ends_a_trial(toy: Toy) -> None:
    """The toy eats 0.4 GB; a worker that has only imported numpy needs far less than the limit."""
    records = run(toy, "trouble(kind=eat)", "shift", limits="{memory_gb: 0.3}")
    assert [one.status for one in records] == [MEMORY, OK]
    assert records[0].reason.startswith("used 0.")
    assert records[0].reason.endswith(" GB; the limit is 0.3 GB")
    assert records[0].cost["peak_memory_bytes"]["value"] > 0.3e9
    assert left_behind() == []


def test_a_trial_may_print_and_finds_nothing_to_read(toy: Toy, capfd: pytest.CaptureFixture[str]) -> None:
    assert ends(run(toy, "trouble(kind=print)", "shift")) == [(OK, ""), (OK, "")]
    assert capfd.readouterr() == ("", "")


def test_what_a_trial_started_ends_with_its_worker(toy: Toy) -> None:
    assert ends(run(toy, "trouble(kind=child)", "trouble(kind=kill)")) == [
        (OK, ""), (FAILED, "worker killed by signal 9"),
    ]  # fmt: skip
    deadline = time.monotonic() + 5
    while left_behind() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left_behind() == []


def test_jobs_run_at_once(toy: Toy) -> None:
    started = time.perf_counter()
    records = run(toy, "trouble(seconds=[1.5, 1.6])", jobs=2)
    assert [one.status for one in records] == [OK, OK]
    overlap = sum(one.cost["wall_seconds"]["value"] for one in records)
    assert overlap > 3
    assert time.perf_counter() - started < 3 + 5


def test_results_do_not_depend_on_the_number_of_jobs(toy: Toy) -> None:
    methods = [f"noise(scale={scale})" for scale in (1.0, 2.0, 3.0)]
    values = []
    for jobs in (1, 3):
        records = run(toy, *methods, jobs=jobs)
        values.append({one.hash: one.metrics["error"]["value"] for one in records})
    assert values[0] == values[1]


def test_closing_ends_the_workers(toy: Toy) -> None:
    trials = plan_suite(load_suite(toy.write(methods='["trouble(seconds=60)"]')))
    outcomes = execute(iter(trials), jobs=2, threads=1)
    assert next(outcomes) is None
    assert len(left_behind()) == 2
    outcomes.close()
    assert left_behind() == []


def test_nothing_to_run_just_now_is_asked_again(toy: Toy) -> None:
    trial = plan_suite(load_suite(toy.write(methods="[shift]")))[0]
    outcomes = [one for one in execute(iter([None, None, trial, None]), jobs=2, threads=1) if one is not None]
    assert [one.record.hash for one in outcomes] == [trial.hash]
