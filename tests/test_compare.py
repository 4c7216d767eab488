"""`harness compare`: two methods of a suite in sentences, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

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

pytestmark = pytest.mark.usefixtures("quick")

MARGIN = SUITE + "margins: {error: 0.5}\n"


def compare(toy: Toy, method: str, than: str, *options: str) -> Result:
    arguments = ["compare", method, than, "--suite", "toys.yaml", "--ledger", "ledger.db", *options]
    return CliRunner().invoke(main, arguments, prog_name="harness")


def test_the_analysis_is_in_sentences(toy: Toy) -> None:
    fill(toy, MARGIN)[1].close()
    result = compare(toy, "shift(twice=true)", "shift(twice=false)")
    assert result.exit_code == 0, result.output
    (first, *_) = result.output.split("\n\n")
    heading, *lines = first.splitlines()
    assert heading == ("shift(by=1, twice=True) against shift(by=1, twice=False): error on one (lower is better)")
    said = [line.strip() for line in lines]
    assert said[0] == "Both were scored on the same 40 items under the same 3 seeds (0, 1, 2)."
    assert said[1].startswith("shift(by=1, twice=True): 1")
    assert "BCa bootstrap over items and seeds, 10,000 resamples" in said[2]
    assert said[3].startswith("Paired permutation test, two-sided: p = ")
    assert "Effect size: d_z = " in said[3]
    assert said[4].startswith("Equivalence within ±0.5 (two one-sided tests): p = ")
    assert said[4].endswith("not shown.")
    assert said[5].startswith("With 80% power at the 5% level this design finds a true difference of ")
    assert said[6] == "Verdict: shift(by=1, twice=True) is worse than shift(by=1, twice=False)."
    assert said[7] == "Protocol: error|v:1"
    assert len(result.output.split("\n\n")) == 4  # two rows, two metrics


def test_json_holds_the_numbers(toy: Toy) -> None:
    fill(toy)[1].close()
    result = compare(toy, "shift(by=1, twice=true)", "shift(by=1, twice=false)", "--json")
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert [row["metric"] for row in rows] == ["error", "error(2)"]
    assert rows[0]["comparison"]["verdict"] == "worse"
    assert rows[0]["comparison"]["difference"] == pytest.approx(1.0, abs=0.4)
    assert rows[0]["margin"] is None


def test_several_rows_against_one_are_corrected(toy: Toy) -> None:
    fill(toy, SUITE.replace("by=[1, 2], twice=true", "by=[2, 3, 4], twice=true"))[1].close()
    result = compare(toy, "shift(twice=true)", "shift(by=1, twice=false)")
    assert "after Holm's correction for 3 comparisons" in result.output
    assert "after the correction" in result.output


def other_protocol(trial: Trial, taken: Scores) -> Scores:
    return replace(taken, signature="error|items:9|v:2") if trial.point.params["twice"] else taken


def test_other_protocols_are_refused_with_the_differing_field(toy: Toy) -> None:
    fill(toy, change=other_protocol)[1].close()
    result = compare(toy, "shift(twice=true)", "shift(twice=false)")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "signatures differ in v:1 / items:9" in result.stderr


def test_other_items_are_refused_by_name(toy: Toy) -> None:
    def fewer(trial: Trial, taken: Scores) -> Scores:
        return Scores(taken.ids[1:], taken.values[1:], "error|v:1") if trial.point.params["twice"] else taken

    fill(toy, change=fewer)[1].close()
    result = compare(toy, "shift(twice=true)", "shift(twice=false)")
    assert result.exit_code == 2
    assert "row:0" in result.stderr


def test_times_of_two_machines_are_refused(toy: Toy) -> None:
    fill(
        toy,
        change=lambda trial, taken: replace(taken, unit="ms"),
        place=lambda trial: {"cpu": str(trial.point.params["twice"]), "threads": 1},
    )[1].close()
    result = compare(toy, "shift(twice=true)", "shift(twice=false)")
    assert result.exit_code == 2
    assert "hardware differs in cpu: True / False" in result.stderr


def test_one_refusal_does_not_hide_what_can_be_compared(toy: Toy) -> None:
    failing = tuple(f"shift(by=1, twice=True) on one seed {seed}" for seed in range(3))
    fill(toy, fail=failing)[1].close()
    result = compare(toy, "shift(twice=true)", "shift(twice=false)")
    assert result.exit_code == 1
    assert "Not compared: shift(by=1, twice=True) has no result: 3 of 3 seeds ended badly" in result.output
    assert "Verdict: shift(by=2, twice=True) is worse" in result.output


@pytest.mark.parametrize(
    ("method", "than", "says"),
    [
        ("shift(by=9)", "shift(by=1)", "has no such row"),
        ("shft", "shift", "did you mean shift"),
        ("shift(bi=9)", "shift", "did you mean by"),
        ("shift(by=1)", "shift(by=1)", "give more parameters"),
        ("shift(by=2)", "noise", "has no such row"),
    ],
)
def test_what_cannot_be_compared_is_one_line(toy: Toy, method: str, than: str, says: str) -> None:
    fill(toy)[1].close()
    result = compare(toy, method, than)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
