"""Bad input of the commands that read results: more rows of `bad_input_table.CASES`, on a ledger of made-up records."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import chdir, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from bad_input_table import LEDGER, Place, case

from harness import Scores
from harness.engine.plan import Trial

FIELDS = {"methods": '["rtn(bits=[2, 3])", dense]', "baseline": "rtn(bits=2)", "seeds": "2"}
Change = Callable[[Trial, Scores], Scores]


def filled(place: Place, change: Change = lambda trial, taken: taken, failed: bool = False) -> str:
    """The suite `bad.yaml` with a record of every trial in the place's ledger."""
    from harness.engine.ledger import open_ledger
    from harness.engine.plan import plan_suite
    from harness.engine.record import FAILED, OK, Record, summary_of
    from harness.engine.suite import load_suite

    name = place.suite(**FIELDS)
    with chdir(place.folder):
        suite = load_suite(name)
        trials = list(plan_suite(suite))
        Path(LEDGER).parent.mkdir(parents=True)
        with closing(open_ledger(LEDGER)) as ledger:
            for trial in trials:
                rng = np.random.default_rng([trial.seed, len(trial.label)])
                ids = [f"image:{at}" for at in range(20)]
                drawn = Scores(ids, rng.integers(0, 2, 20).astype(float), "top1|digits|v:1", higher_is_better=True)
                taken = {call.label: change(trial, drawn) for call in trial.metrics}
                found = {label: summary_of(one) for label, one in taken.items()}
                record = Record.of(trial, FAILED if failed else OK, metrics={} if failed else found)
                ledger.save(record, {} if failed else taken, suite=suite.name)
    return name


def printed(place: Place, form: str, extension: str) -> str:
    """The suite's table in a file, as a paper would hold it."""
    from harness.engine.ledger import open_ledger
    from harness.engine.suite import load_suite
    from harness.tables import render
    from harness.tables.build import Scope, tabulate

    name = filled(place)
    with chdir(place.folder), closing(open_ledger(LEDGER, write=False)) as ledger:
        text = render(tabulate(Scope.of(load_suite(name)), ledger), form)
    return place.file(f"paper.{extension}", text)


def published(place: Place) -> Path:
    from harness.engine.ledger import open_ledger
    from harness.engine.suite import load_suite
    from harness.tables.bundle import publish
    from harness.tables.scope import Scope

    name = filled(place)
    with chdir(place.folder), closing(open_ledger(LEDGER, write=False)) as ledger:
        publish(Scope.of(load_suite(name)), ledger, Path("bundle"))
    return place.folder / "bundle"


def of_dense(trial: Trial, taken: Scores, **changes: object) -> Scores:
    return replace(taken, **changes) if trial.point.method == "dense" else taken


@case("a printed table whose id is unknown here", "paper.md", "unknown table", "import the bundle")
def unknown_id(place: Place) -> list[str]:
    path = place.folder / printed(place, "markdown", "md")
    text = path.read_text()
    at = text.index("harness:bad:1:") + len("harness:bad:1:")
    path.write_text(text.replace(text[at : at + 12], "0" * 12))
    return ["verify", "paper.md"]


@case("a printed table without an id", "paper.md", "harness:SUITE")
def no_id(place: Place) -> list[str]:
    filled(place)
    return ["verify", place.file("paper.md", "| method | top1 |\n| --- | --- |\n| rtn | 0.9 |\n")]


@case("a file to verify that is not there", "absent.tex", "cannot be read: No such file")
def absent_table(place: Place) -> list[str]:
    filled(place)
    return ["verify", "absent.tex"]


@case("a table to verify of another kind", "paper.docx", ".tex")
def other_kind(place: Place) -> list[str]:
    filled(place)
    return ["verify", place.file("paper.docx", "harness:bad:1:000000000000:000000000000")]


@case("an edited bundle", "scores.parquet", "changed")
def edited(place: Place) -> list[str]:
    path = published(place) / "scores.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    os.unlink(place.folder / LEDGER)
    return ["import", "bundle"]


@case("a folder that is no bundle", "manifest.json")
def no_bundle(place: Place) -> list[str]:
    (place.folder / "other").mkdir()
    return ["import", "other"]


@case("nothing to publish", "ledger.db", "no record of suite", "harness run")
def nothing(place: Place) -> list[str]:
    filled(place)
    return ["publish", place.file("other.yaml", (place.folder / "bad.yaml").read_text().replace("bad", "other"))]


@case("scores of two protocols", "signatures differ", "v:1 / v:2")
def two_protocols(place: Place) -> list[str]:
    name = filled(place, lambda trial, taken: of_dense(trial, taken, signature="top1|digits|v:2"))
    return ["compare", "dense", "rtn(bits=2)", "--suite", name]


@case("scores of other items", "image:")
def other_items(place: Place) -> list[str]:
    name = filled(place, lambda trial, taken: of_dense(trial, taken, ids=[f"image:{at + 1}" for at in range(20)]))
    return ["compare", "dense", "rtn(bits=2)", "--suite", name]


@case("a comparison of which every trial failed", "2 of 2 seeds ended badly")
def all_failed(place: Place) -> list[str]:
    return ["compare", "dense", "rtn(bits=2)", "--suite", filled(place, failed=True)]


@case("a row that the suite has not", "rtn(bits=4)", "no such row")
def no_row(place: Place) -> list[str]:
    return ["compare", "rtn(bits=4)", "dense", "--suite", filled(place)]


@case("claims of an unknown name", "gtpq", "did you mean gptq")
def unknown_claims(place: Place) -> list[str]:
    return ["claims", "gtpq"]


@case("a citation of an unknown suite", "quickstar", "did you mean quickstart")
def unknown_citation(place: Place) -> list[str]:
    return ["cite", "quickstar"]
