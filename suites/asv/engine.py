"""What the harness does around the methods: planning, the ledger, statistics, tables, the report."""

from __future__ import annotations

import tempfile

import numpy as np

from harness.engine.ledger import open_ledger
from harness.report.build import build
from harness.report.gather import gather
from harness.stats import ScoreSet, compare_all, paired_ratio
from harness.tables import render
from harness.tables.build import Scope, tabulate

from .made_up import filled, plan, records, suite_in


class InAFolder:
    """Benchmarks in a folder of their own."""

    def setup(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.folder = self._folder.name

    def teardown(self) -> None:
        self._folder.cleanup()


class Planner(InAFolder):
    def setup(self) -> None:
        super().setup()
        self.suite = suite_in(self.folder)

    def time_plan(self) -> None:
        """85 trials, each with its hash."""
        for trial in plan(self.suite):
            _ = trial.hash


class Saving(InAFolder):
    number = 1  # a ledger that has the records already takes another way

    def setup(self) -> None:
        super().setup()
        self.suite = suite_in(self.folder)
        self.records = list(records(self.suite))
        self.ledger = open_ledger(f"{self.folder}/ledger.db")

    def time_save(self) -> None:
        """85 records with the scores of 500 items."""
        for record, scores in self.records:
            self.ledger.save(record, scores, suite=self.suite.name)

    def teardown(self) -> None:
        self.ledger.close()
        super().teardown()


class Reading(InAFolder):
    def setup(self) -> None:
        super().setup()
        self.suite, self.ledger = filled(self.folder)
        self.hashes = [trial.hash for trial in plan(self.suite)]

    def teardown(self) -> None:
        self.ledger.close()
        super().teardown()

    def time_statuses(self) -> None:
        """Which of 85 trials are there."""
        self.ledger.statuses(iter(self.hashes))

    def time_table(self) -> None:
        """17 rows with intervals and paired differences, as Markdown."""
        render(tabulate(Scope.of(self.suite), self.ledger), "markdown")

    def time_report(self) -> None:
        """One HTML file with all plots."""
        build([gather(self.suite, self.ledger)], self.ledger)


class Statistics:
    def setup(self) -> None:
        rng = np.random.default_rng(0)
        ids = tuple(f"item{at:04d}" for at in range(1000))
        sets = [ScoreSet(ids, rng.normal(0.01 * at, 1, (5, 1000)), tuple(range(5))) for at in range(11)]
        self.baseline, self.methods = sets[0], {str(at): one for at, one in enumerate(sets[1:])}
        self.times = rng.gamma(50, 0.02, (2, 30, 2))

    def time_compare(self) -> None:
        """Ten methods against a baseline, 5 seeds x 1000 items, 10,000 resamples."""
        compare_all(self.methods, self.baseline)

    def time_paired_ratio(self) -> None:
        """The ratio of 30 interleaved rounds."""
        paired_ratio(*self.times)
