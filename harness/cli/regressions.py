"""`harness regressions`: what got slower from one commit to another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.common import emit, json_option

if TYPE_CHECKING:
    from harness.regressions import Change


@click.command(short_help="Show which benchmarks got slower.")
@click.option("--threshold", type=float, default=0.05, show_default=True, metavar="PART",
              help="How much of the base's median a change must be to count.")  # fmt: skip
@click.option("--base", metavar="COMMIT", help="The earlier commit. [default: the one before the head]")
@click.option("--head", metavar="COMMIT", help="The later commit. [default: the last that has results]")
@click.option("--machine", metavar="NAME", help="Whose results, where there are several machines.")
@click.option("--results", type=click.Path(path_type=Path), default=Path(".asv/results"), show_default=True,
              metavar="DIR", help="asv's folder of results.")  # fmt: skip
@json_option
def regressions(threshold: float, base: str | None, head: str | None, machine: str | None, results: Path,
                as_json: bool) -> int:  # fmt: skip
    """Compare asv's results of the last two commits (or of --base and --head).

    A benchmark is slower where its median grew by more than the threshold and the middle halves of the samples do not
    overlap. One that was measured once (asv run --quick) is not judged. Exit status 1 if a benchmark is slower or no
    longer runs, 2 if there is nothing to compare.
    """
    from harness.errors import BadInput
    from harness.regressions import compare, pairs

    if not 0 <= threshold < float("inf"):
        raise BadInput(f"--threshold {threshold:g} is not accepted; it takes a number of at least 0")
    worse = 0
    for before, after in pairs(results, base, head, machine):
        changes = compare(before, after, threshold)
        worse += sum(one.verdict in ("slower", "failed") for one in changes)
        if as_json:
            for one in changes:
                emit({"commits": [before.commit, after.commit], "environment": after.environment, **asdict(one),
                      "ratio": one.ratio if one.head else None})  # fmt: skip
            continue
        click.echo(f"{before.commit[:8]} to {after.commit[:8]}, {after.environment}:")
        for one in sorted(changes, key=lambda one: -one.ratio if one.head else float("-inf")):
            if one.verdict not in ("same", "not judged"):
                click.echo(f"  {_line(one)}")
        counts = [f"{sum(one.verdict == word for one in changes)} {word}" for word in
                  ("slower", "failed", "faster", "same", "not judged")]  # fmt: skip
        click.echo(f"  {len(changes)} benchmarks: {', '.join(counts)}")
    return 1 if worse else 0


def _line(one: Change) -> str:
    if one.head is None:
        return f"failed  {one.name}"
    return f"{one.verdict:7} {one.ratio:.2f}x  {_time(one.base.median)} to {_time(one.head.median)}  {one.name}"


def _time(seconds: float) -> str:
    scale, unit = next(((s, u) for s, u in ((1, "s"), (1e3, "ms"), (1e6, "µs")) if seconds * s >= 1), (1e9, "ns"))
    return f"{seconds * scale:.3g} {unit}"
