"""A ledger of a million records, and how long it takes to list and tabulate one suite of it.

    python -m suites.benchmarks.ledger [--ledger URL] [--records 1000000] [--scored 10000] [--items 1000] [--folder DIR]

The ledger is filled with made-up records of suites of a thousand trials each, fifty methods with ten seeds on two
problems; the first suites have scores for every item. Then the two commands run in processes of their own, and their
wall clock, processor time and the most memory they held are printed, the best of the rounds. A ledger that is there
already is not filled again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from harness import Scores
from harness.engine import schema
from harness.engine.ledger import Ledger, open_ledger
from harness.engine.plan import Cell, Plan, Trial, digest, suite_points
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


class Filler:
    """Makes the records of one suite from its plan, and those of the others by giving them other hashes."""

    def __init__(self, ledger: Ledger, path: Path, items: int):
        self.ledger, self.items = ledger, items
        self.rng = np.random.default_rng(0)
        self.ids = [f"item:{at:06d}" for at in range(items)]
        suite = load_suite(path)
        self.name, self.label = suite.name, metric_labels(suite.problems()[0])[0]
        problems = tuple(Cell(one.spec, {"model": digest(one.spec)}, ()) for one in suite.problems())
        self.rows = [self.row(trial) for trial in Plan(suite, problems, suite.seeds, suite_points(suite))]
        self.items_hash, self.items_body = schema.item_set(self.scores())

    def scores(self) -> Scores:
        """0/1 scores of all items."""
        values = (self.rng.random(self.items) < 0.9).astype(float)
        return Scores(self.ids, values, "top1|made-up:test@0|v:1", higher_is_better=True)

    def row(self, trial: Trial) -> dict[str, Any]:
        """The record of a trial, as its table takes it."""
        spent = {"wall_seconds": cost(self.rng.random()), "peak_memory_bytes": cost(int(1e9 * self.rng.random()))}
        size = {"bits_per_weight": 4.25, "model_bytes": 2_000_000}
        record = Record.of(trial, OK, metrics={self.label: summary_of(self.scores())}, size=size, cost=spent)
        fields = {column.name: getattr(record, column.name, None) for column in schema.records.columns}
        return fields | {"environment": "made-up"}

    def suite(self, number: int, scored: bool) -> None:
        """Write the records of one suite, in one transaction."""
        name = self.name if number == 0 else f"{self.name}-{number}"
        rows = [row | {"hash": digest([row["hash"], number])} for row in self.rows]
        with self.ledger.bulk() as write:
            write(schema.records, rows)
            write(schema.members, [{"suite": name, "cell": row["cell"], "hash": row["hash"]} for row in rows])
            if scored:
                common = {"metric": self.label, "item_set": self.items_hash}
                values = (schema.pack_array(self.scores().values) for _ in rows)
                write(schema.scores, [common | {"hash": row["hash"], "item_values": one}
                                      for row, one in zip(rows, values, strict=True)])  # fmt: skip

    def fill(self, records: int, scored: int) -> None:
        """Write so many records, in whole suites; the first `scored` of them with the scores of their items."""
        self.ledger.add_environment("made-up", {"harness": "made up", "cpu": "none", "packages": {}})
        with self.ledger.bulk() as write:
            body = zlib.compress(self.items_body)
            write(schema.item_sets, [{"hash": self.items_hash, "count": self.items, "body": body}])
        for number in range(records // len(self.rows)):
            self.suite(number, number * len(self.rows) < scored)


# A small process between, because Linux counts what the parent of a process held to its peak.
MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.run(sys.argv[1:]).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
spent = [time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3]
print(json.dumps(spent), file=sys.stderr)
raise SystemExit(status)
"""


def measured(arguments: list[str], folder: Path) -> tuple[float, float, float]:
    """(seconds passed, processor's seconds, MB at most) of a command of the harness."""
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", "harness", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise SystemExit(f"harness {' '.join(arguments)} ended with status {done.returncode}: {done.stderr}")
    return tuple(json.loads(done.stderr.splitlines()[-1]))


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
        wall, cpu, peak = zip(*taken, strict=True)
        print(f"harness {words[0]}: {min(wall):.2f} s passed, {min(cpu):.2f} s of processor time, {max(peak):.0f} MB")


if __name__ == "__main__":
    main()
