"""One trial, run in this process: build the problem, solve it, measure the solution."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from harness import registry
from harness.engine.plan import Trial
from harness.engine.record import FAILED, MEMORY, OK, Outcome, Record, cost, summary_of
from harness.engine.tracks import track_module
from harness.engine.tuning import tune
from harness.engine.usage import Meter
from harness.errors import BadInput, TrialFailed
from harness.randomness import seed_everything
from harness.registry import Entry
from harness.scores import Scores

STATE = "HARNESS_STATE"
"""The variable that names the folder in which trainings keep their state."""


def run_trial(trial: Trial, *, alone: bool = True) -> Outcome:
    """Run a trial and say how it ended. Whatever a method or metric raises becomes a failed record."""
    meter = Meter(alone=alone)
    run = _Run(trial)
    status, reason, trace, refused = OK, "", "", ""
    try:
        run.all()
    except Exception as error:
        status, reason, trace = _status(error), _one_line(error), traceback.format_exc()
        refused = run.stage if isinstance(error, BadInput) else ""
        if refused:
            run.forget()  # with other input it will be another trial
    spent = {**meter.read(), "solve_seconds": cost(run.solve_seconds)}
    if status != OK:
        record = Record.of(trial, status, reason=reason, traceback=trace, size=run.size, cost=spent, log=run.log)
        return Outcome(record, refused=refused)
    run.forget()
    metrics = {label: summary_of(scores) for label, scores in run.scores.items()}
    return Outcome(Record.of(trial, OK, metrics=metrics, size=run.size, cost=spent, log=run.log), run.scores)


class _Run:
    """The stages of a trial; `stage` names the one it is in."""

    def __init__(self, trial: Trial):
        self.trial = trial
        self.stage = "start"
        self.solve_seconds: float | None = None
        self.log: dict[str, Any] = {}
        self.size: dict[str, Any] = {}
        self.scores: dict[str, Scores] = {}

    def all(self) -> None:
        trial = self.trial
        entry = _as_planned("method", trial.point.method, trial.point.version, trial.track)
        metrics = [(call, _as_planned("metric", call.name, call.version)) for call in trial.metrics]
        track = track_module(trial.track)
        # Nothing should draw from the global generators; if a library does, each trial gets the same.
        seed_everything(int(hashlib.sha256(trial.hash.encode()).hexdigest()[:8], 16))
        self.stage = "build"
        problem = self._build("only")
        self.stage = "solve"
        start = time.perf_counter()
        if trial.spec.get("tuning"):
            tuned = tune(entry, track, trial, self._build)
            problem, solution, self.log["tuning"] = tuned.problem, tuned.solution, tuned.tried
        else:
            solution = track.solve(entry, problem, dict(trial.point.params))
        self.solve_seconds = time.perf_counter() - start
        self.log |= plain(getattr(solution, "log", {}))
        self.size = track.size(problem, solution)
        subject = track.subject(problem, solution)
        if trial.limit is not None:
            subject.limit = trial.limit
        self.stage = "metrics"
        for call, metric in metrics:
            self.scores[call.label] = _finite(metric(subject, **call.params), call.label)

    def _build(self, place: str) -> Any:
        """The trial's problem; what it trains is kept in a folder of that name, for a run that is killed."""
        problem = track_module(self.trial.track).build(self.trial.spec, seed=self.trial.seed)
        if self.folder is not None and hasattr(problem, "folder"):
            problem.folder = self.folder / place
        return problem

    @property
    def folder(self) -> Path | None:
        """Where the state of unfinished trainings is kept: below `$HARNESS_STATE`, nowhere without it."""
        where = os.environ.get(STATE)
        return Path(where) / self.trial.hash[:24] if where else None

    def forget(self) -> None:
        """The trial is done; what would have continued it is no longer needed."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def plain(value: Any) -> Any:
    """Figures as JSON holds them: numbers that are not finite become None, arrays lists."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_planned(kind: str, name: str, version: str, track: str | None = None) -> Entry:
    """The registered function, if its source is what the plan saw: a result must not be filed under other code."""
    entry = registry.get(name, kind, track)
    if entry.version != version:
        raise BadInput(f"the source of {kind} {name} changed while the suite was running; run it again")
    return entry


def _finite(scores: Scores, label: str) -> Scores:
    bad = np.flatnonzero(~np.isfinite(scores.values))
    if len(bad):
        item = scores.ids[int(bad[0])]
        raise TrialFailed(f"{label}: {len(bad)} of {len(scores.ids)} items are not finite, the first is {item}")
    if not math.isfinite(scores.value):
        raise TrialFailed(f"{label} is {scores.value}")
    return scores


def _status(error: Exception) -> str:
    exhausted = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return MEMORY if exhausted or "can't allocate memory" in str(error) else FAILED


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, BadInput | TrialFailed):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
