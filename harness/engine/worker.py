"""A worker process: reads trials from its standard input, a JSON line each, and writes what became of them.

Its imports are paid once for many trials. It ends when its input does, in the middle of a trial too, so that no worker
outlives the run that started it, however that died.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from typing import TextIO

READY = "ready"
"""The first line a worker writes, when its imports are done."""


def _serve(alone: bool) -> None:
    inbox, outbox = _take_pipes()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(inbox, lines), daemon=True).start()

    from harness import registry
    from harness.engine.plan import Trial
    from harness.engine.record import FAILED, Outcome, Record
    from harness.engine.trial import run_trial

    registry.import_all()
    print(READY, file=outbox, flush=True)
    while True:
        trial = Trial.from_json(lines.get())
        outcome = run_trial(trial, alone=alone)
        try:
            text = outcome.to_json()
        except (TypeError, ValueError) as error:
            text = Outcome(Record.of(trial, FAILED, reason=f"its figures cannot be stored: {error}")).to_json()
        print(text, file=outbox, flush=True)


def _take_pipes() -> tuple[TextIO, TextIO]:
    """The pipes to the parent, out of the reach of code that reads or prints."""
    inbox, outbox = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return inbox, outbox


def _listen(inbox: TextIO, lines: queue.SimpleQueue[str]) -> None:
    for line in inbox:
        lines.put(line)
    if os.getpgrp() == os.getpid():  # what a trial started is in the group that this worker leads, and ends with it
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    _serve(alone="--alone" in sys.argv)
