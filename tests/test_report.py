"""The report: everything of the ledger is on the page, text is only text, and nothing is written by halves."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from engine_toy import Toy, toy_fixture  # noqa: F401
from report_samples import EVIL, LAYERS, SMALL, fill

from harness import BadInput
from harness.cli import main
from harness.engine.ledger import Ledger, open_ledger
from harness.engine.suite import load_suite
from harness.report.build import build
from harness.report.figure import Figure
from harness.report.gather import Section, gather
from harness.report.payload import COSTS, Shared, embedded, payload
from harness.tables import Quantity


@dataclass
class Made:
    section: Section
    ledger: Ledger
    html: str
    figures: dict[str, Figure]
    data: dict[str, Any]


_made: list[Made] = []


@pytest.fixture(name="made")
def made_fixture(toy: Toy) -> Made:
    """One report for all tests that only look at it: plots take a second to draw."""
    if not _made:
        suite, ledger = fill(toy)
        section = gather(suite, ledger)
        report = build([section], ledger)
        figures = {figure.key: figure for figure in report.figures}
        _made.append(Made(section, ledger, report.html, figures, page(report.html).data))
    return _made[0]


class Page(HTMLParser):
    """The elements of a page, and the JSON in it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, Any] = {}
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][1].get("id") == "data" and not self.data:
            self.data = json.loads(data)
        self.text.append(data)


def page(html: str) -> Page:
    parser = Page()
    parser.feed(html)
    return parser


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), prog_name="harness")


def test_numbers_are_those_of_the_table(made: Made) -> None:
    for at, table in enumerate(made.section.tables):
        shown = made.data["suites"][0]["problems"][at]
        assert [column["heading"] for column in shown["columns"]] == [column.heading for column in table.columns]
        for row, found in zip(table.rows, shown["rows"], strict=True):
            for column, cell in zip(table.columns, found["cells"], strict=True):
                value = row.values.get(column.key)
                expected = [value.number, value.interval, value.word] if isinstance(value, Quantity) else value
                assert (cell[:3] if isinstance(value, Quantity) else cell) == expected


def test_every_record_is_there_with_what_made_it(made: Made) -> None:
    data = made.data
    place = {name: at for at, name in enumerate(data["fields"])}
    found = {record[place["hash"]]: record for record in data["records"]}
    expected = {one.hash: one for one in made.ledger.records(suite="toys")}
    assert expected.keys() < found.keys()
    for name, one in expected.items():
        shown = found[name]
        assert shown[place["seed"]] == one.seed
        assert shown[place["costs"]] == [one.cost.get(figure, {}).get("value") for figure in COSTS]
        assert data["environments"][shown[place["environment"]]] == made.ledger.environment(one.environment)
        assert data["reasons"][shown[place["reason"]]] == one.reason
        row = data["suites"][0]["problems"][shown[place["problem"]]]["rows"][shown[place["row"]]]
        assert row["params"] == one.params
        if one.metrics:
            value, protocol, extra = shown[place["metrics"]][0]
            assert value == one.metrics["error"]["value"]
            assert data["signatures"][protocol] == [
                one.metrics["error"]["signature"],
                one.metrics["error"]["items"],
                "points",
            ]
            assert extra == {"limit": 4.0}
    older = [record for record in data["records"] if record[place["old"]]]
    assert len(older) == 6
    assert {record[place["version"]] for record in older} == {"before"}


def test_a_row_leads_to_the_command_that_computes_it(made: Made) -> None:
    commands = made.data["suites"][0]["commands"]
    assert commands[0].endswith("toys.yaml --only 'shift(by=1)' --fresh")
    assert commands[0].startswith("harness run ")


def test_which_plots_there_are_and_why_one_is_not(made: Made) -> None:
    kinds = ("error-pareto", "error-differences", "error-limit", "layers", "curves", "wall", "history")
    assert [key for key in made.figures if key.startswith("toys-one")] == [f"toys-one-{kind}" for kind in kinds]
    assert all(figure.draw for figure in made.figures.values())
    assert "peak" not in " ".join(made.figures)  # no record measured it
    assert "2 without every seed" in made.figures["toys-ranks"].caption
    assert "2 problems cannot tell them apart" in made.figures["toys-ranks"].caption


def test_one_problem_is_not_ranked_by_its_seeds(toy: Toy) -> None:
    suite, ledger = fill(toy, SMALL)
    with closing(ledger):
        figures = build([gather(suite, ledger)], ledger).figures
    ranks = figures[-1]
    assert ranks.draw is None
    assert "Seeds of one problem are repetitions" in ranks.caption


def test_a_row_without_every_seed_stands_outside_the_front(made: Made) -> None:
    assert "2 rows lack seeds" in made.figures["toys-two-error-pareto"].caption
    assert "lack seeds" not in made.figures["toys-one-error-pareto"].caption


def test_layers_are_means_over_seeds(made: Made) -> None:
    marks, layers, errors = made.figures["toys-one-layers"].draw.args  # type: ignore[union-attr]
    assert layers == sorted(LAYERS)
    assert len(marks) == 4
    assert errors[0] == pytest.approx([0.04, 0.02, 0.08, 0.06])


def test_text_is_only_text(made: Made) -> None:
    assert EVIL not in made.html
    tags = page(made.html).tags
    scripts = [attributes for tag, attributes in tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert not [tag for tag, _ in tags if tag == "img"]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert EVIL in "".join(made.data["reasons"])  # kept, as what it is


def test_nothing_is_loaded_from_elsewhere(made: Made) -> None:
    for tag, attributes in page(made.html).tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png")), (tag, name)
    assert "@import" not in made.html
    assert not re.search(r"url\((?!#)", made.html)
    policy = next(attributes["content"] for tag, attributes in page(made.html).tags if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_the_same_ledger_gives_the_same_page(toy: Toy) -> None:
    suite, ledger = fill(toy, SMALL)
    with closing(ledger):
        first, second = (build([gather(suite, ledger)], ledger).html for _ in range(2))
    assert first == second


def test_ids_are_unique(made: Made) -> None:
    ids = [attributes["id"] for _, attributes in page(made.html).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_marks_of_plots_lead_to_rows(made: Made) -> None:
    marks = [attributes for _, attributes in page(made.html).tags if "data-row" in attributes]
    assert {mark["data-row"] for mark in marks} == {f"0.{problem}.{row}" for problem in (0, 1) for row in range(5)}
    buttons = [mark for mark in marks if mark.get("role") == "button"]
    assert buttons
    assert all(mark["tabindex"] == "0" and mark["aria-label"] for mark in buttons)


def test_embedded_json_cannot_end_its_element() -> None:
    value = {"a": "</script><!--&\u2028", "b": [1, None]}
    text = embedded(value)
    assert not set("<>&") & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded(float("nan"))


def test_repeated_parts_stand_once() -> None:
    shared = Shared()
    assert [shared.add(one) for one in ({"a": 1}, "x", {"a": 1}, "x")] == [0, 1, 0, 1]
    assert shared.values == [{"a": 1}, "x"]


def test_a_record_more_costs_little(made: Made) -> None:
    """5,000 records must open at once: each is a list of a few hundred characters."""
    data = payload([made.section], made.ledger)
    sizes = [len(embedded(record)) for record in data["records"] if not record[-1]]
    assert max(sizes) < 350


def test_command_writes_the_page_and_the_plots(toy: Toy) -> None:
    suite, ledger = fill(toy, SMALL)
    ledger.close()
    before = set(Path().iterdir())
    result = harness("report", str(suite.path), "--ledger", "ledger.db", "--output", "out/r.html", "--plots", "plots")
    assert result.exit_code == 0, result.output
    assert "wrote out/r.html" in result.stdout
    assert {path.name for path in set(Path().iterdir()) - before} == {"out", "plots"}
    assert [path.name for path in Path("out").iterdir()] == ["r.html"]
    stems = {path.stem for path in Path("plots").iterdir()}
    assert {path.name for path in Path("plots").iterdir()} == {
        f"{one}.{form}" for one in stems for form in ("svg", "pdf")
    }
    assert stems == {f"toys-one-{kind}" for kind in ("error-pareto", "error-limit", "layers", "wall", "history")}
    assert Path("plots/toys-one-wall.pdf").read_bytes().startswith(b"%PDF")


def test_without_a_suite_every_known_one_is_shown(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, ledger = fill(toy, SMALL)
    ledger.close()
    result = harness("report", "--ledger", "ledger.db")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "harness: ledger ledger.db: has records of toys; give the path of the suite's file\n"
    monkeypatch.setattr("harness.engine.suite.SUITES", suite.path.parent)
    result = harness("report", "--ledger", "ledger.db")
    assert result.exit_code == 0, result.output
    assert Path("results/local/report.html").read_text().startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_leaves_the_old_one(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, ledger = fill(toy, SMALL)
    ledger.close()
    Path("r.html").write_text("old")

    def full(self: Path, *_: object) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    result = harness("report", str(suite.path), "--ledger", "ledger.db", "--output", "r.html")
    assert result.exit_code == 2
    assert result.stderr == "harness: r.html: cannot be written: No space left on device\n"
    assert Path("r.html").read_text() == "old"
    assert not list(Path().glob(".r.html*"))


def test_a_suite_without_records_is_named(toy: Toy) -> None:
    ledger = open_ledger("ledger.db")
    suite = load_suite(toy.write(SMALL))
    with closing(ledger), pytest.raises(BadInput, match=r"has no record of suite toys; `harness run .*` makes them"):
        gather(suite, ledger)
