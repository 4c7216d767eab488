"""`harness cite` and `harness verify`: a table's id, and whether every printed number still holds."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from engine_toy import Toy, toy_fixture  # noqa: F401
from table_samples import (
    SUITE,
    fill,
    quick_fixture,  # noqa: F401
)

from harness import Scores
from harness.cli import main
from harness.engine.plan import Trial
from harness.tables import FORMATS, render
from harness.tables.build import Scope, settings, tabulate
from harness.tables.citation import ID, table_id
from harness.tables.printed import parse

pytestmark = pytest.mark.usefixtures("quick")

TWO = "shift(by=2, twice=True)"


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--ledger", "ledger.db"], prog_name="harness")


def written(toy: Toy, form: str, text: str = SUITE, **options: object) -> Path:
    """The table of a made-up ledger, in a file of its own."""
    scope, ledger = fill(toy, text, **options)  # type: ignore[arg-type]
    with closing(ledger):
        tables = tabulate(scope, ledger)
    path = toy.folder / f"paper.{FORMATS[form].extension}"
    path.write_text(render(tables, form))
    return path


def swap(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def other_digit(number: str) -> str:
    """The number with its last digit changed."""
    return number[:-1] + str((int(number[-1]) + 1) % 10)


@pytest.mark.parametrize("form", ["markdown", "latex", "json", "csv"])
def test_a_table_as_it_was_written_holds(toy: Toy, form: str) -> None:
    result = harness("verify", str(written(toy, form)))
    assert result.exit_code == 0, result.output
    assert "every printed number holds" in result.output


@pytest.mark.parametrize("form", ["markdown", "latex", "json", "csv"])
def test_a_table_of_other_statistics_code_holds_where_its_numbers_do(toy: Toy, form: str) -> None:
    path = written(toy, form)
    text = path.read_text()
    (code,) = {found["code"] for found in ID.finditer(text)}
    path.write_text(text.replace(code, "00000000"))
    result = harness("verify", str(path))
    assert result.exit_code == 0, result.output
    assert "other statistics code" in result.output


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_a_changed_digit_is_found_and_named(toy: Toy, form: str) -> None:
    path = written(toy, form)
    line = next(
        one for one in path.read_text().splitlines() if TWO in one.replace("\\", "") and "&|"[form == "markdown"] in one
    )
    number = re.findall(r"\d+\.\d+", line)[2]
    swap(path, line, line.replace(number, other_digit(number), 1))
    result = harness("verify", str(path))
    assert result.exit_code == 1
    assert "1 of " in result.output
    (change,) = [one for one in result.output.splitlines() if one.startswith("  row")]
    assert change.startswith(f"  row {TWO}, column error ↓")
    assert f"printed {other_digit(number)}" in change
    assert f"recomputed {number}" in change


def test_every_number_of_a_latex_table_is_checked(toy: Toy) -> None:
    """Each number of the body in turn: none can be changed unseen."""
    path = written(toy, "latex", SUITE.replace('metrics: [error, "error(power=2)"]', "metrics: [error]"))
    text = path.read_text()
    body = text.index(r"\midrule"), text.index(r"\bottomrule")
    numbers = [one for one in re.finditer(r"\d+(\.\d+)?", text) if body[0] < one.start() < body[1]]
    assert len(numbers) >= 50
    (again,) = parse(text, path)
    for number in numbers:
        changed = text[: number.start()] + other_digit(number.group()) + text[number.end() :]
        (printed,) = parse(changed, path)
        assert printed.cells != again.cells, number


def test_json_and_csv_are_checked_unrounded(toy: Toy) -> None:
    path = written(toy, "json")
    body = json.loads(path.read_text())
    body["tables"][0]["rows"][3]["values"]["error"]["value"] += 0.001
    path.write_text(json.dumps(body))
    result = harness("verify", str(path), "--json")
    assert result.exit_code == 1
    found = json.loads(result.output)
    assert [(one["row"], one["column"]) for one in found["changes"]] == [(TWO, "error value")]
    assert not found["holds"]


def test_last_places_of_another_machine_hold_and_are_told(toy: Toy) -> None:
    path = written(toy, "json")
    body = json.loads(path.read_text())
    body["tables"][0]["rows"][3]["values"]["error"]["low"] *= 1 + 1e-9
    path.write_text(json.dumps(body))
    result = harness("verify", str(path))
    assert result.exit_code == 0
    assert "1 unrounded numbers differ in their last places" in result.output


def test_numbers_of_the_notes_are_checked(toy: Toy) -> None:
    path = written(toy, "markdown")
    (note,) = re.findall(r"^\d+\. (error: smallest .*)\.$", path.read_text(), re.MULTILINE)
    swap(path, note, other_digit(note))
    result = harness("verify", str(path))
    assert result.exit_code == 1
    assert f"printed {other_digit(note)}., recomputed {note}." in result.output


def test_a_table_in_a_paper_may_be_shorter_and_have_other_words_around_it(toy: Toy) -> None:
    path = written(toy, "latex")
    lines = path.read_text().splitlines()
    kept = [line for line in lines if "shift(by=1, twice=True)" not in line]
    assert len(kept) == len(lines) - 1
    other = "\\begin{tabular}{ll}\\toprule\nour & own \\\\\n\\midrule\n1 & 2 \\\\\n\\end{tabular}\n"
    path.write_text("\\section{Results} " + other + "\n".join(kept).replace("Time: wall", "We say: time, wall"))
    result = harness("verify", str(path))
    assert result.exit_code == 0, result.output
    assert "1 sentences beside the table are not the harness's own" in result.output


def test_the_protocol_is_read_from_the_command_beside_the_table(toy: Toy) -> None:
    scope, ledger = fill(toy)
    with closing(ledger):
        tables = tabulate(Scope.of(scope.suite, seeds=2), ledger)
    assert tables[0].citation is not None
    assert tables[0].citation.command == "harness run toys.yaml --seeds 2"
    for form in ("markdown", "latex"):
        path = toy.folder / f"two.{FORMATS[form].extension}"
        path.write_text(render(tables, form))
        assert harness("verify", str(path)).exit_code == 0


def test_an_unknown_id_is_one_line(toy: Toy) -> None:
    path = written(toy, "markdown")
    identity = ID.search(path.read_text())
    assert identity
    swap(path, identity["records"], "0" * 16)
    result = harness("verify", str(path))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "unknown table harness:toys:1:0000000000000000" in result.stderr


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.md", "| a |\n| - |\n| 1 |\n", "holds no table with an id"),
        ("a.pdf", "", "is no .tex, .md, .json or .csv file"),
        ("a.json", "{}", "is no JSON that `harness table` writes"),
        ("c.json", '{"tables": [{"id": "x", "command": "", "columns": []}]}', "is no JSON that `harness table` writes"),
        ("b.json", '{"tables": [{"id": "x", "command": "", "columns": [{"key": "a"}], '
            '"rows": [], "notes": [], "protocol": []}]}',
         "'x' is no table's id"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_one_line(toy: Toy, name: str, text: str, says: str) -> None:
    fill(toy)[1].close()
    (toy.folder / name).write_text(text)
    result = harness("verify", name)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert says in result.stderr
    assert "cannot be read" in harness("verify", "none.md").stderr


def test_an_id_changes_with_the_records_and_the_settings(toy: Toy) -> None:
    def shifted(trial: Trial, taken: Scores) -> Scores:
        """One item's score moved to another: the same mean, other intervals."""
        values = taken.values.copy()
        values[[0, 1]] += [1e-3, -1e-3]
        return replace(taken, values=values)

    scope, ledger = fill(toy)
    with closing(ledger):
        (first,), (again,) = tabulate(scope, ledger), tabulate(scope, ledger)
    (toy.folder / "ledger.db").unlink()
    scope, ledger = fill(toy, change=shifted)
    with closing(ledger):
        (other,) = tabulate(scope, ledger)
    assert first.citation and again.citation and other.citation  # noqa: PT018
    assert first.citation == again.citation
    assert ID.fullmatch(first.citation.id)
    assert first.citation.id.rpartition(":")[2] == other.citation.id.rpartition(":")[2]
    assert first.citation.id.split(":")[3] != other.citation.id.split(":")[3]
    plain = settings(scope)
    assert table_id("toys", 1, "0" * 16, plain) != table_id("toys", 1, "0" * 16, {**plain, "correction": "bh"})


def test_cite_prints_ids_command_and_bibtex(toy: Toy) -> None:
    fill(toy)[1].close()
    result = harness("cite", "toys.yaml")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert ID.search(lines[0])
    assert lines[1] == "% made by: harness run toys.yaml"
    assert lines[2] == "% without a paper of their own: shift"
    found = json.loads(harness("cite", "toys.yaml", "--json").output)
    assert list(found["tables"]) == ["one"]
    assert found["bibtex"] == []


def test_benjamini_hochberg_is_an_option_and_part_of_the_id(toy: Toy) -> None:
    fill(toy)[1].close()
    holm = harness("table", "toys.yaml", "--format", "markdown").output
    bh = harness("table", "toys.yaml", "--format", "markdown", "--correction", "bh").output
    assert "Benjamini and Hochberg's correction" in bh
    (toy.folder / "bh.md").write_text(bh)
    assert harness("verify", "bh.md").exit_code == 0
    ids = [ID.search(text) for text in (holm, bh)]
    assert ids[0] and ids[1]  # noqa: PT018
    assert ids[0]["records"] == ids[1]["records"]
    assert ids[0]["code"] != ids[1]["code"]
    assert harness("table", "toys.yaml", "--correction", "bonferroni").exit_code == 2
