"""The two ways things go wrong: the input is bad, or a trial failed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(Exception):
    """Input that cannot be used. The message is one line that names the file, the field, the value and what would
    be accepted; the command line prints it and exits with status 2, having written nothing."""

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


class TrialFailed(Exception):
    """A trial that could not finish, for a reason worth recording in one line (its record keeps the traceback)."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause naming the known names closest to `name`, or all of them when none is close.

    >>> nearest("gtpq", ["gptq", "awq"])
    'did you mean gptq?'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(names)}" if names else "none is registered"
