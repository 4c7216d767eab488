"""Whole runs: nothing is computed twice, nothing is lost, whatever is killed and whoever else is at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from engine_toy import Toy, toy_fixture  # noqa: F401

from harness import BadInput
from harness.engine.ledger import open_ledger
from harness.engine.plan import plan_suite
from harness.engine.record import OK, Record
from harness.engine.run import Event, preview, run_suite
from harness.engine.suite import load_suite

RUN = """
import json
from harness.engine.run import run_suite
result = run_suite("toys.yaml", jobs={jobs}, on_event=lambda event: print(json.dumps(event), flush=True))
raise SystemExit(result.exit_status)
"""


def counts(toy: Toy, path: Path, **options: object) -> tuple[int, int, int, int]:
    result = run_suite(path, jobs=options.pop("jobs", 1), **options)  # type: ignore[arg-type]
    return result.planned, result.cached, result.done, result.failed


def records(**filters: str) -> list[Record]:
    ledger = open_ledger(write=False)
    found = list(ledger.records(**filters))  # type: ignore[arg-type]
    ledger.close()
    return found


def test_the_second_run_computes_nothing(toy: Toy) -> None:
    path = toy.write()
    assert counts(toy, path) == (6, 0, 6, 0)
    assert counts(toy, path) == (6, 6, 0, 0)
    assert len(toy.runs()) == 6


def test_more_seeds_compute_the_missing_ones(toy: Toy) -> None:
    path = toy.write()
    counts(toy, path)
    assert counts(toy, path, seeds=3) == (9, 6, 3, 0)


def test_another_suite_finds_what_is_there(toy: Toy) -> None:
    counts(toy, toy.write())
    other = toy.write(name="others.yaml", suite="others", methods="[noise, shift]")
    assert counts(toy, other) == (4, 4, 0, 0)
    assert [one.method for one in records(suite="others")] == ["noise", "shift", "noise", "shift"]


def test_a_changed_source_reruns_its_trials_only(toy: Toy) -> None:
    path = toy.write()
    counts(toy, path)
    source = toy.code / "toy_methods" / "shift.py"
    source.write_text(source.read_text().replace('"""Add a number."""', '"""Add some number."""'))
    toy.reload()
    assert counts(toy, path) == (6, 6, 0, 0)
    source.write_text(source.read_text().replace("+ by", "- by"))
    toy.reload()
    assert counts(toy, path) == (6, 2, 4, 0)
    assert Counter(line.split()[0] for line in toy.runs()) == {"shift": 8, "noise": 2}
    assert len(records(suite="toys")) == 6
    assert len(records()) == 10


def test_fresh_computes_all_again(toy: Toy) -> None:
    path = toy.write()
    counts(toy, path)
    before = {one.hash: one.created for one in records()}
    assert counts(toy, path, fresh=True) == (6, 0, 6, 0)
    after = {one.hash: one.created for one in records()}
    assert after.keys() == before.keys()
    assert all(after[one] > before[one] for one in after)


def test_failures_count_until_they_are_retried(toy: Toy) -> None:
    path = toy.write(methods='["trouble(kind=fail)", noise]', seeds="1")
    assert run_suite(path, jobs=1).exit_status == 1
    assert counts(toy, path) == (2, 2, 0, 1)
    assert counts(toy, path, retry_failed=True) == (2, 1, 1, 1)
    source = toy.code / "toy_methods" / "trouble.py"
    assert len(toy.runs()) == 3
    source.write_text(source.read_text().replace('raise TrialFailed("it did not converge")', "pass"))
    toy.reload()
    result = run_suite(path, jobs=1)
    assert (result.done, result.failed, result.exit_status) == (1, 0, 0)


def test_events_tell_the_story(toy: Toy) -> None:
    events: list[Event] = []
    run_suite(toy.write(methods='[shift, "trouble(kind=fail)"]', seeds="1"), jobs=1, on_event=events.append)
    assert [event["event"] for event in events] == ["plan", "start", "trial", "start", "trial", "end"]
    plan, start, good, _, bad, end = events
    assert (plan["suite"], plan["planned"], plan["cached"], plan["pending"], plan["jobs"]) == ("toys", 2, 0, 2, 1)
    assert start["label"] == "shift on one seed 0"
    assert start["trial"] == good["trial"]
    assert (good["status"], good["metrics"], good["ended"], good["planned"]) == (OK, {"error": 1.0}, 1, 2)
    assert (bad["status"], bad["reason"], bad["left_seconds"]) == ("failed", "it did not converge", 0)
    assert (end["planned"], end["cached"], end["done"], end["failed"]) == (2, 0, 2, 1)
    json.dumps(events)


def test_the_environment_is_recorded_and_not_hashed(toy: Toy) -> None:
    path = toy.write()
    counts(toy, path, jobs=1)
    assert counts(toy, path, jobs=2) == (6, 6, 0, 0)
    counts(toy, path, jobs=2, fresh=True, only="noise")
    ledger = open_ledger(write=False)
    jobs = {ledger.environment(one.environment)["jobs"] for one in ledger.records()}
    ledger.close()
    assert jobs == {1, 2}


def test_a_preview_runs_and_writes_nothing(toy: Toy) -> None:
    path = toy.write()
    plan = plan_suite(load_suite(path))
    assert [status for _, status in preview(plan)] == [None] * 6
    assert not Path("results").exists()
    counts(toy, path, only="noise")
    assert Counter(status for _, status in preview(plan)) == {None: 4, OK: 2}
    assert len(toy.runs()) == 2


# Bad input


def test_a_bad_suite_leaves_nothing_behind(toy: Toy) -> None:
    with pytest.raises(BadInput, match="unknown method"):
        run_suite(toy.write(methods="[nois]"))
    with pytest.raises(BadInput) as caught:
        run_suite(toy.write(), jobs=0)
    assert str(caught.value) == "--jobs 0 is not accepted; it takes a number of at least 1"
    assert not Path("results").exists()


def test_a_problem_that_cannot_be_built_stops_the_run(toy: Toy) -> None:
    with pytest.raises(BadInput) as caught:
        run_suite(toy.write(problem="{size: 0}"))
    assert str(caught.value) == "toy: size is 0; it takes at least 1 row"
    assert records() == []


def test_when_every_trial_refuses_its_input_nothing_is_kept(toy: Toy) -> None:
    with pytest.raises(BadInput) as caught:
        run_suite(toy.write(methods='["trouble(kind=refuse)"]'))
    assert str(caught.value) == "trouble: layer a: 5 columns are not a multiple of group_size=2"
    assert records() == []


def test_a_refusal_among_others_is_a_failed_trial(toy: Toy) -> None:
    path = toy.write(methods='["trouble(kind=refuse)", noise]', seeds="1")
    assert counts(toy, path) == (2, 0, 2, 1)
    assert {one.method: one.status for one in records()} == {"trouble": "failed", "noise": "ok"}


def test_a_source_that_changes_during_a_run_stops_it(toy: Toy) -> None:
    path = toy.write()
    plan = plan_suite(load_suite(path))
    assert len(plan) == 6
    source = toy.code / "toy_methods" / "shift.py"
    source.write_text(source.read_text().replace("+ by", "- by"))
    with pytest.raises(BadInput) as caught:
        run_suite(path, jobs=1)
    assert str(caught.value) == "the source of method shift changed while the suite was running; run it again"
    assert all(one.method == "noise" for one in records())


# Killed, and at once

SLOW = {"methods": '["trouble(seconds=[0.40, 0.41, 0.42, 0.43])"]'}


def wait_for(process: subprocess.Popen[str], event: str, count: int) -> None:
    """Until a run has told of so many events of a kind."""
    assert process.stdout is not None
    for line in process.stdout:
        count -= json.loads(line)["event"] == event
        if count <= 0:
            return
    raise AssertionError(process.communicate()[1])


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_a_run_killed_in_the_middle_goes_on_where_it_was(toy: Toy) -> None:
    path = toy.write(**SLOW)
    process = toy.start(RUN.format(jobs=2))
    wait_for(process, "trial", 3)
    workers = workers_of(process)
    assert len(workers) == 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    gone, alive = psutil.wait_procs(workers, timeout=5)
    assert (len(gone), alive) == (2, [])
    kept = records(suite="toys")
    assert 3 <= len(kept) < 8
    assert counts(toy, path, jobs=2) == (8, len(kept), 8 - len(kept), 0)
    after = records(suite="toys")
    assert len({one.hash for one in after}) == len(after) == 8
    assert {one.hash: one.created for one in kept}.items() <= {one.hash: one.created for one in after}.items()
    # A trial that was running when the run was killed is the only one begun twice.
    assert max(Counter(toy.runs()).values()) <= 2 * 2
    assert len(toy.runs()) <= 8 + 2


def test_an_interrupt_stops_cleanly(toy: Toy) -> None:
    path = toy.write(**SLOW)
    process = toy.start(RUN.format(jobs=2))
    wait_for(process, "trial", 2)
    workers = workers_of(process)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=10)[1]
    assert "KeyboardInterrupt" in error
    gone, alive = psutil.wait_procs(workers, timeout=5)
    assert (len(gone), alive) == (2, [])
    kept = len(records())
    assert counts(toy, path, jobs=2) == (8, kept, 8 - kept, 0)


def test_a_worker_killed_from_outside_fails_its_trial_only(toy: Toy) -> None:
    toy.write(**SLOW)
    process = toy.start(RUN.format(jobs=1))
    wait_for(process, "trial", 1)
    wait_for(process, "start", 1)
    time.sleep(0.1)
    workers_of(process)[0].send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == 1
    found = Counter((one.status, one.reason) for one in records())
    assert found == {("ok", ""): 7, ("failed", "worker killed by signal 9"): 1}


def test_two_runs_at_once_share_the_work(toy: Toy) -> None:
    toy.write(**SLOW)
    runs = [toy.start(RUN.format(jobs=1)) for _ in range(2)]
    events = [[json.loads(line) for line in run.communicate(timeout=300)[0].splitlines()] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    last = [one[-1] for one in events]
    assert [end["planned"] for end in last] == [8, 8]
    assert sum(end["done"] for end in last) == 8
    assert all(end["done"] + end["cached"] == 8 for end in last)
    assert min(end["done"] for end in last) > 0
    assert len(toy.runs()) == len(set(toy.runs())) * 2 == 8
    assert len(records(suite="toys")) == 8


def test_a_run_whose_ledger_fails_stops_in_one_line(toy: Toy) -> None:
    path = toy.write(**SLOW)
    ledger = open_ledger()

    def full(*_: object, **__: object) -> None:
        raise BadInput("ledger x: the disk is full; free space and run again, nothing finished was lost")

    ledger.save = full  # type: ignore[method-assign]
    with pytest.raises(BadInput, match="the disk is full"):
        run_suite(path, ledger=ledger, jobs=1)
    assert [one for one in psutil.Process(os.getpid()).children(recursive=True) if "worker" in str(one.cmdline())] == []
    ledger.close()
    started = time.perf_counter()
    assert counts(toy, path, only="trouble(seconds=0.4)", seeds=1) == (1, 0, 1, 0)
    assert time.perf_counter() - started < 30
