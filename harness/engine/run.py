"""Run a suite: what the ledger has is not computed again; the rest goes to worker processes, one record each."""

from __future__ import annotations

import dataclasses
import itertools
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harness.engine.environment import cores, environment
from harness.engine.execute import execute
from harness.engine.ledger import BATCH, LEASE_SECONDS, Ledger, NoLedger, open_ledger
from harness.engine.owner import new_owner
from harness.engine.plan import Plan, Trial, digest, plan_suite
from harness.engine.record import OK, Outcome, Record
from harness.engine.suite import Limits, Suite, load_suite
from harness.engine.tracks import track_module
from harness.errors import BadInput

Event = dict[str, Any]
"""What happens in a run, as one JSON object: `event` is `plan`, `machine` (what it can do at most, where a
track measures that first), `start`, `trial` or `end`."""


@dataclass(frozen=True)
class RunResult:
    """What a run came to. `cached` trials had a record (or another process made it meanwhile), `done` were run here;
    `failed` counts the failures among both."""

    plan: Plan = field(repr=False)
    planned: int
    cached: int
    done: int
    failed: int
    seconds: float

    @property
    def exit_status(self) -> int:
        return 1 if self.failed else 0


def run_suite(
    suite: Suite | str | Path,
    *,
    ledger: Ledger | str | None = None,
    only: str | None = None,
    seeds: int | None = None,
    limit: int | None = None,
    model: str | None = None,
    jobs: int | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
) -> RunResult:
    """Run what the ledger does not have of a suite (`fresh`: all of it).

    Trials that failed are kept as they are unless `retry_failed`. Raises BadInput before anything is run for what is
    wrong with the suite; during the run when a problem cannot be built (no trial on it could succeed), when every
    trial refuses its input, or when the ledger cannot be written.
    """
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    if jobs is not None and jobs < 1:
        raise BadInput(f"--jobs {jobs} is not accepted; it takes a number of at least 1")
    alone = getattr(track_module(suite.track), "ALONE", False)
    if alone and jobs not in (None, 1):
        raise BadInput(
            f"--jobs {jobs} is not accepted; trials of track {suite.track} are timed, so they run one at a time"
        )
    plan = plan_suite(suite, only=only, seeds=seeds, limit=limit, model=model)
    store = ledger if isinstance(ledger, Ledger) else open_ledger(ledger)
    try:
        chosen = 1 if alone else jobs or default_jobs(suite.limits)
        run = _Run(plan, store, on_event, chosen, fresh, retry_failed)
        return run.all()
    finally:
        if store is not ledger:
            store.close()


def default_jobs(limits: Limits) -> int:
    """One job a core, as far as memory goes when each uses what it may; at most eight."""
    fits = psutil.virtual_memory().available / (limits.memory_gb * 1e9) if limits.memory_gb else cores()
    return max(1, min(cores(), int(fits), 8))


def preview(plan: Plan, ledger: str | None = None) -> Iterator[tuple[Trial, str | None]]:
    """Every trial of a plan with the status of its record, None where it would be run. Writes nothing."""
    try:
        store = open_ledger(ledger, write=False)
    except NoLedger:
        yield from ((trial, None) for trial in plan)
        return
    with closing(store):
        for batch in _batches(plan):
            known = store.statuses(trial.hash for _, trial in batch)
            yield from ((trial, known[trial.hash][0] if trial.hash in known else None) for _, trial in batch)


def _batches(plan: Plan) -> Iterator[list[tuple[int, Trial]]]:
    trials = enumerate(plan)
    while batch := list(itertools.islice(trials, BATCH)):
        yield batch


class _Run:
    """One run: what is left to do, and the counts so far."""

    def __init__(
        self, plan: Plan, ledger: Ledger, tell: Callable[[Event], None], jobs: int, fresh: bool, retry_failed: bool
    ):
        self.plan, self.ledger, self.tell, self.jobs = plan, ledger, tell, jobs
        self.fresh, self.retry_failed = fresh, retry_failed
        self.threads = max(1, cores() // jobs)
        self.owner = new_owner()
        self.started = time.time()
        self.cached = self.done = self.failed = 0
        self.refused: list[Outcome] = []

    def all(self) -> RunResult:
        pending = self._pending()
        preamble = getattr(track_module(self.plan.suite.track), "preamble", None)
        if pending and preamble:
            self.tell({"event": "machine", "lines": preamble([cell.spec for cell in self.plan.cells])})
        self.tell(
            {"event": "plan", "suite": self.plan.suite.name, "planned": len(self.plan), "cached": self.cached,
             "failed": self.failed, "pending": len(pending), "jobs": self.jobs, "threads": self.threads}
        )  # fmt: skip
        if pending:
            try:
                self._work(pending)
            finally:
                with suppress(BadInput):  # the lease of a process that is gone is free anyway
                    self.ledger.release(self.owner)
        counts = {"planned": len(self.plan), "cached": self.cached, "done": self.done, "failed": self.failed}
        seconds = time.time() - self.started
        self.tell({"event": "end", "suite": self.plan.suite.name, **counts, "seconds": seconds})
        return RunResult(self.plan, **counts, seconds=seconds)

    def _pending(self) -> array[int]:
        """Positions in the plan of what is to be run; what the ledger has is entered under this suite."""
        pending = array("Q")
        for batch in _batches(self.plan):
            known = {} if self.fresh else self.ledger.statuses(trial.hash for _, trial in batch)
            found = []
            for at, trial in batch:
                status = known.get(trial.hash, (None,))[0]
                if status is None or (self.retry_failed and status != OK):
                    pending.append(at)
                else:
                    found.append((trial.cell, trial.hash))
                    self.failed += status != OK
            self.cached += len(found)
            self.ledger.enroll(self.plan.suite.name, found)
        return pending

    def _work(self, pending: array[int]) -> None:
        body = environment(jobs=self.jobs, threads=self.threads)
        place = digest(body)
        self.ledger.add_environment(place, body)
        beaten = time.time()
        options: dict[str, Any] = {"jobs": self.jobs, "threads": self.threads, "state": self.ledger.state}
        with closing(execute(self._hand_out(pending), **options)) as outcomes:
            for outcome in outcomes:
                if time.time() - beaten > LEASE_SECONDS / 10:
                    self.ledger.beat(self.owner)
                    beaten = time.time()
                if outcome is not None:
                    record = dataclasses.replace(outcome.record, environment=place)
                    self._take(dataclasses.replace(outcome, record=record))
        if self.refused and not self.done and not self.cached:
            record = self.refused[0].record
            raise BadInput(f"{record.method}: {record.reason}")
        self._keep_refused()

    def _hand_out(self, pending: array[int]) -> Iterator[Trial | None]:
        """Trials that nobody else is working on; then those of others, as they turn out to be free or done."""
        left = deque(pending)
        since = self.started if self.fresh or self.retry_failed else None
        while left:
            for _ in range(len(left)):
                at = left.popleft()
                trial = self.plan[at]
                state = self.ledger.claim(trial.hash, self.owner, since=since)
                if state == "mine":
                    self.tell({"event": "start", "trial": trial.hash, "label": trial.label})
                    yield trial
                elif state == "busy":
                    left.append(at)
                else:
                    self._done_elsewhere(trial)
            again = time.time() + 1
            while left and time.time() < again:
                yield None

    def _done_elsewhere(self, trial: Trial) -> None:
        self.ledger.enroll(self.plan.suite.name, [(trial.cell, trial.hash)])
        record = self.ledger.get(trial.hash)
        assert record is not None
        self.cached += 1
        self.failed += record.status != OK
        self._report(record)

    def _take(self, outcome: Outcome) -> None:
        """Keep what a trial came to. Refusals are held back until something else came: if nothing does, the input was
        bad and the ledger stays as it was."""
        if outcome.refused in ("start", "build"):
            raise BadInput(outcome.record.reason)
        if outcome.refused and not self.done and not self.cached:
            self.refused.append(outcome)
            return
        self._keep_refused()
        self._save(outcome)

    def _keep_refused(self) -> None:
        held, self.refused = self.refused, []
        for outcome in held:
            self._save(outcome)

    def _save(self, outcome: Outcome) -> None:
        self.ledger.save(outcome.record, outcome.scores, suite=self.plan.suite.name)
        self.done += 1
        self.failed += outcome.record.status != OK
        self._report(outcome.record)

    def _report(self, record: Record) -> None:
        ended, planned = self.cached + self.done, len(self.plan)
        wall = record.cost.get("wall_seconds", {}).get("value")
        self.tell(
            {
                "event": "trial",
                "trial": record.hash,
                "method": record.method,
                "params": record.given,
                "model": record.model,
                "seed": record.seed,
                "status": record.status,
                "reason": record.reason,
                "seconds": wall,
                "metrics": {label: summary["value"] for label, summary in record.metrics.items()},
                "ended": ended,
                "planned": planned,
                "left_seconds": (time.time() - self.started) / self.done * (planned - ended) if self.done else None,
            }
        )
