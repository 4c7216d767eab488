"""Run trials in worker processes of this machine, each within its limits of time and memory.

An executor is a function from trials to outcomes: it pulls the next trial when it has room for one and yields what
becomes of it. Another one (a cluster's) takes its place by having the same signature.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from harness.engine.plan import Trial
from harness.engine.record import FAILED, MEMORY, TIMEOUT, Outcome, Record, cost
from harness.engine.trial import STATE
from harness.engine.worker import READY

POLL_SECONDS = 0.1
START_SECONDS = 600.0
"""A worker that has not finished its imports by then is given up."""
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)  # fmt: skip


def execute(
    trials: Iterator[Trial | None], *, jobs: int, threads: int, state: Path | None = None
) -> Generator[Outcome | None, None, None]:
    """Run trials, `jobs` at a time with `threads` threads each, and yield each outcome when it is there.

    Trainings keep their state below the folder `state`, so that a trial that was killed goes on where it was.

    A None from `trials` means that there is none to run just now; a None yielded is a sign of life, several a second.
    Closing the iterator (or an interrupt) ends every worker.
    """
    workers = [_Worker(threads, state, alone=jobs == 1) for _ in range(jobs)]
    pending = True
    try:
        while True:
            for worker in workers:
                if pending and not worker.busy:
                    try:
                        trial = next(trials)
                    except StopIteration:
                        pending = False
                        break
                    if trial is None:
                        break
                    worker.give(trial)
            busy = [worker for worker in workers if worker.busy]
            if not busy and not pending:
                return
            _wait(busy)
            for worker in busy:
                if outcome := worker.look():
                    yield outcome
            yield None
    finally:
        for worker in workers:
            worker.stop()


def _wait(workers: list[_Worker]) -> None:
    """Until one of the workers has written something, or it is time to look at their limits."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.output, selectors.EVENT_READ)
        if not workers:
            time.sleep(POLL_SECONDS)
        else:
            selector.select(POLL_SECONDS)


class _Worker:
    """A slot: a worker process, started when there is a trial for it and again after it died."""

    def __init__(self, threads: int, state: Path | None = None, *, alone: bool):
        self._threads = threads
        self._state = state
        self._alone = alone
        self._process: subprocess.Popen[bytes] | None = None
        self._trial: Trial | None = None
        self._log: Any = None

    @property
    def busy(self) -> bool:
        return self._trial is not None

    @property
    def output(self) -> Any:
        return self._running.stdout

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def give(self, trial: Trial) -> None:
        """Start a trial."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        self._trial = trial
        self._since = time.monotonic()
        self._peak = 0
        with suppress(BrokenPipeError):  # it died; `look` finds out
            stdin: Any = self._running.stdin
            stdin.write(trial.to_json().encode() + b"\n")
            stdin.flush()

    def look(self) -> Outcome | None:
        """The outcome of the trial, if it has one by now."""
        ended = self._running.poll() is not None
        self._read()
        for line in self._lines():
            if line != READY.encode():
                return self._finish(Outcome.from_json(line.decode()))
            self._ready = True
            self._since = time.monotonic()
        if ended:
            return self._fail(FAILED, self._cause())
        return self._over_limit()

    def stop(self) -> None:
        """End the worker and all it started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        pipes: tuple[Any, ...] = (self._process.stdin, self._process.stdout, self._log)
        for pipe in pipes:
            with suppress(OSError):
                pipe.close()
        self._process = None

    def _start(self) -> None:
        self.stop()
        count = str(self._threads)
        variables = {
            **os.environ,
            **dict.fromkeys(_THREAD_VARIABLES, count),
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PYTHONHASHSEED": "0",
            "TOKENIZERS_PARALLELISM": "false",
            **({STATE: str(self._state.absolute())} if self._state else {}),
        }
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        # -P: a worker finds modules where its parent does, not in the folder it happens to be started in.
        command = [sys.executable, "-P", "-m", "harness.engine.worker", *(["--alone"] if self._alone else [])]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
        self._process = subprocess.Popen(command, **pipes, env=variables, start_new_session=True)
        os.set_blocking(self.output.fileno(), False)
        self._buffer = b""
        self._ready = False

    def _read(self) -> None:
        while chunk := self.output.read(1 << 20):
            self._buffer += chunk

    def _lines(self) -> Iterator[bytes]:
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            yield line

    def _over_limit(self) -> Outcome | None:
        trial = self._trial
        assert trial is not None
        seconds = time.monotonic() - self._since
        limit = trial.seconds if self._ready else START_SECONDS
        if limit is not None and seconds > limit:
            return self._fail(TIMEOUT, f"ran {seconds:.1f} s; the limit is {limit:g} s")
        self._peak = max(self._peak, _memory(self._running.pid))
        if trial.memory_gb is not None and self._peak > trial.memory_gb * 1e9:
            return self._fail(MEMORY, f"used {self._peak / 1e9:.2f} GB; the limit is {trial.memory_gb:g} GB")
        return None

    def _cause(self) -> str:
        code = self._running.returncode
        if code < 0:
            return f"worker killed by signal {-code}"
        return f"worker ended with status {code}" if self._ready else f"worker could not start (status {code})"

    def _fail(self, status: str, reason: str) -> Outcome:
        trial = self._trial
        assert trial is not None
        log = self._tail()
        self.stop()
        spent = {
            "wall_seconds": cost(time.monotonic() - self._since),
            "peak_memory_bytes": cost(float(self._peak) or None, "proxy"),
        }
        return self._finish(Outcome(Record.of(trial, status, reason=reason, traceback=log, cost=spent)))

    def _finish(self, outcome: Outcome) -> Outcome:
        self._trial = None
        return outcome

    def _tail(self) -> str:
        """The end of what the worker wrote on its standard error."""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4000))
        return self._log.read().decode(errors="replace")


def _memory(pid: int) -> int:
    """Resident bytes of a process and its children now."""
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += one.memory_info().rss
    return total
