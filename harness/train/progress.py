"""One line of progress: a bar with the time left on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, str], None]
"""(steps done since the start, note) -> None."""
SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress(title: str, total: int, *, done: int = 0, show: bool = True) -> Iterator[Advance]:
    """A function to call as `advance(steps_done, note)`; everything goes to stderr.

    `done`: steps already behind us, not counted in the speed. `show=False` gives a function that does nothing.
    """
    if not show:
        yield _silent
    elif sys.stderr.isatty():
        with _bar(title, total, done) as advance:
            yield advance
    else:
        yield _lines(title, total, done)


def _silent(step: int, note: str) -> None:
    pass


@contextmanager
def _bar(title: str, total: int, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    name, note_column = TextColumn("[bold]{task.description}"), TextColumn("{task.fields[note]}")
    columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note_column)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def advance(step: int, note: str) -> None:
            bar.update(task, completed=step, note=note)

        yield advance


def _lines(title: str, total: int, done: int) -> Advance:
    start = last = time.monotonic()

    def advance(step: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES and step < total:
            return
        last = now
        left = (now - start) / max(1, step - done) * (total - step)
        print(f"{title} {step}/{total} {note} ({_clock(left)} left)", file=sys.stderr, flush=True)

    return advance


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
