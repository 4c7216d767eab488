"""How a run is told to whoever started it: a bar with the time left on a terminal, a line a trial elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from harness.params import format_call
from harness.train.progress import _clock as clock
from harness.train.progress import progress

Event = dict[str, Any]


@contextmanager
def reporter() -> Iterator[Callable[[Event], None]]:
    """A function that takes the events of a run; everything it says goes to stderr."""
    with ExitStack() as stack:
        yield _bar(stack) if sys.stderr.isatty() else _lines()


def _bar(stack: ExitStack) -> Callable[[Event], None]:
    advance: Callable[[int, str], None] | None = None

    def tell(event: Event) -> None:
        nonlocal advance
        if event["event"] == "machine":
            _say(event)
        elif event["event"] == "plan" and event["pending"]:
            advance = stack.enter_context(progress(event["suite"], event["planned"], done=event["cached"]))
        elif event["event"] == "trial" and advance:
            advance(event["ended"], _what(event) if event["status"] == "ok" else f"{_what(event)} {event['status']}")

    return tell


def _lines() -> Callable[[Event], None]:
    """The plan is told with the first trial that ends: a run whose input is refused before says that alone."""
    plan = ""

    def tell(event: Event) -> None:
        nonlocal plan
        if event["event"] == "machine":
            _say(event)
        elif event["event"] == "plan":
            found = f"{event['cached']} in the ledger" + (f" ({event['failed']} failed)" if event["failed"] else "")
            plan = f"{event['suite']}: {event['planned']} trials, {found}, {event['pending']} to run\n"
        elif event["event"] in ("trial", "end"):
            line = f"{_line(event)}\n" if event["event"] == "trial" else ""
            click.echo(plan + line, err=True, nl=False)
            plan = ""

    return tell


def _say(event: Event) -> None:
    click.echo("\n".join(event["lines"]), err=True)


def _line(event: Event) -> str:
    spent = "" if event["seconds"] is None else f" {event['seconds']:.1f} s"
    left = "" if event["left_seconds"] is None else f", {clock(event['left_seconds'])} left"
    reason = f": {event['reason']}" if event["reason"] else ""
    return f"[{event['ended']}/{event['planned']}{left}] {_what(event)} {event['status']}{spent}{reason}"


def _what(event: Event) -> str:
    where = f" on {event['model']}" if event["model"] else ""
    return f"{format_call(event['method'], event['params'])}{where} seed {event['seed']}"
