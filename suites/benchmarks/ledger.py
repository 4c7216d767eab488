"""A ledger of a million records, and how long it takes to list and tabulate one suite of it.

    python -m suites.benchmarks.ledger [--ledger URL] [--records 1000000] [--scored 10000] [--items 1000] [--folder DIR]

The ledger is filled with made-up records of suites of a thousand trials each, fifty methods with ten seeds on two
problems; the first suites have scores for every item. Then the two commands run in processes of their own, and their
wall clock and the most memory they held are printed. A ledger that is there already is not filled again.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from harness import Scores
from harness.engine import schema
from harness.engine.ledger import Ledger, open_ledger
from harness.engine.plan import Cell, Plan, digest, suite_points
from harness.engine.record import OK, Record, cost, summary_of
from harness.engine.suite import load_suite
from harness.tables.scope import metric_labels

SUITE = """\
suite: made-up
title: Made-up records
track: compress
models: [digits-vit, resnet20]
problem: {calibration: {dataset: digits, split: train, samples: 8}}
methods:
  - rtn(bits=[2, 3, 4, 8], group_size=[16, 32, 64, 128])
  - gptq(bits=[2, 3, 4, 8], group_size=[16, 32, 64, 128])
  - magnitude(sparsity=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
  - wanda(sparsity=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
  - dense
metrics: ["top1(dataset=digits)"]
seeds: 10
baseline: dense
"""
BULK = 2000
"""Records written in one statement."""


class Filler:
    """Makes the records of one suite after the other from the plan of the first."""

    def __init__(self, ledger: Ledger, path: Path, items: int):
        self.ledger, self.items = ledger, items
        suite = load_suite(path)
        problems = [Cell(one.spec, {"model": digest(one.spec)}, ()) for one in suite.problems()]
        self.trials = list(Plan(suite, tuple(problems), suite.seeds, suite_points(suite)))
        self.label = metric_labels(suite.problems()[0])[0]
        self.rng = np.random.default_rng(0)
        self.ids = [f"item:{at:06d}" for at in range(items)]
        self.columns = [column.name for column in schema.records.columns]

    def scores(self) -> Scores:
        """0/1 scores of all items."""
        values = (self.rng.random(self.items) < 0.9).astype(float)
        return Scores(self.ids, values, "top1|made-up:test@0|v:1", higher_is_better=True)

    def rows(self, suite: int, scored: bool) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]]:
        """(record, membership, scores) of every trial; later suites are of other data, so that they share no record."""
        name = "made-up" if suite == 0 else f"made-up-{suite}"
        for trial in self.trials:
            trial = dataclasses.replace(trial, suite=name, content={"model": f"{suite}"})
            taken = self.scores()
            spent = {"wall_seconds": cost(self.rng.random()), "peak_memory_bytes": cost(int(1e9 * self.rng.random()))}
            size = {"bits_per_weight": 4.25, "model_bytes": 2_000_000}
            record = Record.of(trial, OK, metrics={self.label: summary_of(taken)}, size=size, cost=spent)
            fields = {column: getattr(record, column, None) for column in self.columns} | {"environment": "made-up"}
            member = {"suite": name, "cell": record.cell, "hash": record.hash}
            values = {"hash": record.hash, "metric": self.label, "item_set": schema.item_set(taken)[0]}
            yield fields, member, values | {"item_values": schema.pack_array(taken.values)} if scored else None

    def fill(self, records: int, scored: int) -> None:
        """Write at least so many records, the first `scored` of them with the scores of their items."""
        self.ledger.add_environment("made-up", {"harness": "made up", "cpu": "none", "packages": {}})
        digested, body = schema.item_set(self.scores())
        with self.ledger.bulk() as write:
            write(schema.item_sets, [{"hash": digested, "count": self.items, "body": zlib.compress(body)}])
        per_suite = len(self.trials)
        for first in range(0, records, BULK):
            suites = range(first // per_suite, min(first + BULK, records) // per_suite)
            made = itertools.chain.from_iterable(self.rows(one, one * per_suite < scored) for one in suites)
            rows, members, scores = zip(*made, strict=True)
            with self.ledger.bulk() as write:
                write(schema.records, list(rows))
                write(schema.members, list(members))
                write(schema.scores, [one for one in scores if one is not None])


def measured(arguments: list[str], folder: Path) -> tuple[float, float, int]:
    """(seconds, MB at most, lines printed) of a command of the harness."""
    start = time.perf_counter()
    with open(folder / "out.txt", "w") as out:
        process = subprocess.Popen([sys.executable, "-m", "harness", *arguments], stdout=out, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"harness {' '.join(arguments)} ended with status {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_maxrss / 1e3, len((folder / "out.txt").read_text().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, value in (("records", 1_000_000), ("scored", 10_000), ("items", 1000), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--folder", type=Path, default=Path("made-up"))
    parser.add_argument("--ledger", help="[default: a file in the folder]")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    suite, url = folder / "made-up.yaml", options.ledger or str(folder / "ledger.db")
    suite.write_text(SUITE)
    with closing(open_ledger(url)) as ledger:
        start, known = time.perf_counter(), sum(ledger.suites().values())
        if not known:
            Filler(ledger, suite, options.items).fill(options.records, options.scored)
            known = sum(ledger.suites().values())
            print(f"wrote {known} records in {time.perf_counter() - start:.0f} s")
    for words in (["table", str(suite)], ["list", "trials", "--suite", str(suite)]):
        taken = [measured([*words, "--ledger", url], folder) for _ in range(options.rounds)]
        seconds = ", ".join(f"{one:.2f}" for one, _, _ in taken)
        print(f"harness {' '.join(words[:2])}: {seconds} s; {max(m for _, m, _ in taken):.0f} MB; {taken[0][2]} lines")


if __name__ == "__main__":
    main()
