"""How a run is told to whoever started it: a bar with the time left on a terminal, a line a trial elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from harness.params import format_call
from harness.train.progress import progress

Event = dict[str, Any]


@contextmanager
def reporter() -> Iterator[Callable[[Event], None]]:
    """A function that takes the events of a run; everything it says goes to stderr."""
    with ExitStack() as stack:
        yield _bar(stack) if sys.stderr.isatty() else _lines


def _bar(stack: ExitStack) -> Callable[[Event], None]:
    advance: Callable[[int, str], None] | None = None

    def tell(event: Event) -> None:
        nonlocal advance
        if event["event"] == "plan" and event["pending"]:
            advance = stack.enter_context(progress(event["suite"], event["planned"], done=event["cached"]))
        elif event["event"] == "trial" and advance:
            advance(event["ended"], _what(event) if event["status"] == "ok" else f"{_what(event)} {event['status']}")

    return tell


def _lines(event: Event) -> None:
    if event["event"] == "plan":
        found = f"{event['cached']} in the ledger" + (f" ({event['failed']} failed)" if event["failed"] else "")
        click.echo(f"{event['suite']}: {event['planned']} trials, {found}, {event['pending']} to run", err=True)
    elif event["event"] == "trial":
        spent = "" if event["seconds"] is None else f" {event['seconds']:.1f} s"
        left = "" if event["left_seconds"] is None else f", {_clock(event['left_seconds'])} left"
        reason = f": {event['reason']}" if event["reason"] else ""
        ended = f"{event['ended']}/{event['planned']}"
        click.echo(f"[{ended}{left}] {_what(event)} {event['status']}{spent}{reason}", err=True)


def _what(event: Event) -> str:
    where = f" on {event['model']}" if event["model"] else ""
    return f"{format_call(event['method'], event['params'])}{where} seed {event['seed']}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
