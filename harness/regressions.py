"""Which of asv's benchmarks got slower from one commit to another, by more than their noise.

A benchmark is slower (or faster) where two things hold: the medians differ by more than a threshold, and the middle
halves of the samples do not overlap (the lower quartile of the slower one lies above the upper quartile of the other).
The first ignores what does not matter, the second what may be chance. A benchmark that was measured once (`asv run
--quick`) has no quartiles and is not judged; one that worked and no longer does counts as slower.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import BadInput, nearest

RESULTS = Path(".asv/results")
THRESHOLD = 0.05
NOT_A_RUN = ("machine.json", "benchmarks.json")
Verdict = Literal["slower", "faster", "same", "failed", "not judged"]


@dataclass(frozen=True)
class Sampled:
    """One benchmark of one commit, in asv's unit (seconds): the median and, where it was repeated, the quartiles."""

    median: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Run:
    """All benchmarks of a commit in one environment. `date` is the commit's, in milliseconds since 1970. None stands
    for a benchmark that failed."""

    commit: str
    date: int
    environment: str
    benchmarks: dict[str, Sampled | None]


@dataclass(frozen=True)
class Change:
    """A benchmark at two commits."""

    name: str
    verdict: Verdict
    base: Sampled
    head: Sampled | None

    @property
    def ratio(self) -> float:
        """Median at the head over the median at the base."""
        return self.head.median / self.base.median if self.head and self.base.median else math.nan


def compare(base: Run, head: Run, threshold: float = THRESHOLD) -> list[Change]:
    """Every benchmark that the base has a figure of and the head has run, by name."""
    found = []
    for name, before in sorted(base.benchmarks.items()):
        if before is not None and name in head.benchmarks:
            after = head.benchmarks[name]
            found.append(Change(name, _verdict(before, after, threshold), before, after))
    return found


def _verdict(base: Sampled, head: Sampled | None, threshold: float) -> Verdict:
    if head is None:
        return "failed"
    if base.low is None or base.high is None or head.low is None or head.high is None:
        return "not judged"
    if head.median > base.median * (1 + threshold) and head.low > base.high:
        return "slower"
    if base.median > head.median * (1 + threshold) and base.low > head.high:
        return "faster"
    return "same"


def pairs(
    folder: Path, base: str | None = None, head: str | None = None, machine: str | None = None
) -> list[tuple[Run, Run]]:
    """The two commits in every environment that has run both: by default the last two, by the commits' dates.

    `base` and `head` are beginnings of commit hashes; a base alone is compared with the last commit, a head alone with
    the one before it. Raises BadInput where there are no such results.
    """
    runs = list(_runs(_machine(folder, machine)))
    order = [commit for commit, _ in sorted({run.commit: run.date for run in runs}.items(), key=lambda one: one[1])]
    last = _commit(order, head, "head", folder) if head else order[-1] if order else ""
    before = order[: order.index(last)] if last else []
    if base is None and not before:
        raise BadInput(f"{folder}: has results of {len(order)} commits, none before {last[:8] or 'the last'}; "
                       "`asv run` at another commit adds some")  # fmt: skip
    first = _commit(order, base, "base", folder) if base else before[-1]
    if first == last:
        raise BadInput(f"--base and --head are both commit {last[:8]}; give two")
    found = [
        (one, two) for one, two in itertools.product(runs, runs)
        if (one.commit, two.commit) == (first, last) and one.environment == two.environment
    ]  # fmt: skip
    if not found:
        raise BadInput(f"{folder}: commits {first[:8]} and {last[:8]} were not run in one environment")
    return found


def _machine(folder: Path, name: str | None) -> Path:
    """The folder of a machine: times of two are not compared."""
    known = sorted(path.name for path in folder.glob("*") if path.is_dir() and any(_files(path)))
    if not known:
        raise BadInput(f"{folder}: has no results of asv; `asv run` writes them")
    if name is not None and name not in known:
        raise BadInput(f"--machine {name}: has no results in {folder}; {nearest(name, known)}")
    if name is None and len(known) > 1:
        raise BadInput(f"{folder}: has results of several machines; choose one with --machine: {', '.join(known)}")
    return folder / (name or known[0])


def _files(machine: Path) -> list[Path]:
    return [path for path in sorted(machine.glob("*.json")) if path.name not in NOT_A_RUN]


def _commit(order: list[str], wanted: str, option: str, folder: Path) -> str:
    found = [commit for commit in order if commit.startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(commit[:8] for commit in order)
        what = "is several commits" if found else "is no commit with results"
        raise BadInput(f"--{option} {wanted}: {what} in {folder}; there are {known}")
    return found[0]


def _runs(machine: Path) -> Iterator[Run]:
    for path in _files(machine):
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            columns = body["result_columns"]
            benchmarks: dict[str, Sampled | None] = {}
            for name, values in body["results"].items():
                # Columns at the end that hold nothing are left out.
                benchmarks |= _sampled(name, dict(itertools.zip_longest(columns, values)))
            yield Run(body["commit_hash"], body["date"], body["env_name"], benchmarks)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{path}: is no result of asv: {type(error).__name__}: {error}") from error


def _sampled(name: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, Sampled | None]]:
    """A benchmark's figures, one for every combination of its parameters; those that do not apply are left out."""
    combinations = list(itertools.product(*(fields.get("params") or [])))
    count = len(combinations)
    results = fields["result"] if fields["result"] is not None else [None] * count
    lows, highs = (fields.get(key) or [None] * count for key in ("stats_q_25", "stats_q_75"))
    for values, median, low, high in zip(combinations, results, lows, highs, strict=True):
        label = f"{name}({', '.join(values)})" if values else name
        if median is None:
            yield label, None
        elif not math.isnan(median):
            # Of a single sample both quartiles are the sample.
            repeated = low is not None and high is not None and low != high
            yield label, Sampled(median, low, high) if repeated else Sampled(median)
