"""Tables: built from records, rounded by their uncertainty, written whole."""

from __future__ import annotations

import csv
import errno
import io
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_toy import Toy, toy_fixture  # noqa: F401
from rich.console import Console
from table_samples import ITEMS, SUITE, draw, fill, scores

from harness import BadInput, Scores, registry
from harness.engine.plan import plan_suite
from harness.engine.suite import load_suite
from harness.stats import ScoreSet, compare, interval
from harness.tables import FORMATS, Column, Quantity, Row, Table, render, write_files
from harness.tables.bibliography import find
from harness.tables.build import Scope, metric_labels, short_names, tabulate
from harness.tables.model import BITS, Evidence
from harness.tables.rounding import rounded
from harness.tables.statistics import evaluate
from harness.tables.terminal import print_tables
from harness.tables.writers import problem_line


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (12.34567, 12.31, 12.37, "12.346"),
        (0.123456, 0.1, 0.15, "0.123"),
        (98765.4, 90_000.0, 110_000.0, "99000"),
        (5.0, 5.0 - 0.0996, 5.0 + 0.0996, "5.00"),
        (-0.00001, -0.02, 0.02, "0.000"),
        (3.14159, None, None, "3.142"),
        (123456.7, None, None, "123457"),
        (0.0, None, None, "0"),
        (float("nan"), 0.0, 1.0, "nan"),
        (2.5, 2.5, 2.5, "2.500"),
        (1.5e9, 1.4e9, 1.6e9, "1.5e+09"),
    ],
)
def test_numbers_have_two_digits_of_their_half_width(value: float, low: float, high: float, text: str) -> None:
    assert rounded([value], low, high) == [text]


def test_a_quantity_is_rounded_as_one() -> None:
    assert str(Quantity(1.23456, 1.2, 1.27, "better", signed=True)) == "+1.235 [+1.200, +1.270] better"
    assert str(Quantity(7.0)) == "7.000"


def only_table(toy: Toy, **options: tuple[str, ...]) -> Table:
    scope, ledger = fill(toy, **options)  # type: ignore[arg-type]
    with closing(ledger):
        (table,) = tabulate(scope, ledger)
    return table


def test_a_table_holds_what_the_statistics_say(toy: Toy) -> None:
    scope, ledger = fill(toy)
    (table,) = tabulate(scope, ledger)
    assert [column.key for column in table.columns] == [
        "method", "bits_per_weight", "model_mb", "error", "error difference", "error(power=2)",
        "error(power=2) difference", "seconds", "peak_memory_mb", "seeds", "failed",
    ]  # fmt: skip
    rows = {str(row.values["method"]): row.values for row in table.rows}
    assert list(rows) == ["shift(by=1, twice=False)", "shift(by=2, twice=False)", "shift(by=1, twice=True)",
                          "shift(by=2, twice=True)"]  # fmt: skip

    def stacked(by: int, twice: bool) -> ScoreSet:
        trials = [t for t in plan_suite(scope.suite) if t.point.params == {"by": by, "twice": twice}]
        return ScoreSet.stack([scores(draw(trial, 2)) for trial in trials], [trial.seed for trial in trials])

    row = rows["shift(by=2, twice=True)"]
    expected, other = interval(stacked(2, True)), compare(stacked(2, True), stacked(2, False))
    estimate = row["error(power=2)"]
    assert isinstance(estimate, Quantity)
    assert estimate.value == pytest.approx(expected.value)
    # The interval shares its draw of resamples with other rows: the same up to the resampling error.
    width = expected.high - expected.low
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=0.05 * width)
    difference = row["error(power=2) difference"]
    evidence = Evidence(other.p, other.p, other.effect, other.effect_name)
    assert difference == Quantity(other.difference, other.low, other.high, other.verdict, signed=True, test=evidence)
    assert str(evidence) == f"p = {other.p:.4f}, d_z = {other.effect:.2f}"
    shown = json.loads(render([table], "json"))["tables"][0]["rows"][3]["values"]["error(power=2) difference"]
    assert (shown["p"], shown["adjusted_p"], shown["effect"]) == (other.p, other.p, other.effect)
    sheet = list(csv.DictReader(io.StringIO(render([table], "csv"))))[3]
    assert float(sheet["error(power=2) difference_effect"]) == other.effect
    assert rows["shift(by=2, twice=False)"]["error difference"] == "baseline"
    assert row["seconds"] == Quantity(2.0, digits=3)
    assert row["peak_memory_mb"] == Quantity((3e8 + 2) / 1e6, digits=3)
    assert row["model_mb"] == Quantity(2.0)
    assert row["seeds"] == "3/3"
    assert "error|v:1" in " ".join(table.notes)


def test_rows_are_paired_with_the_baseline_of_their_own_parameters(toy: Toy) -> None:
    """A difference to the other baseline row would be off by one."""
    table = only_table(toy)
    found = {str(row.values["method"]): row.values["error difference"] for row in table.rows}
    one, two = found["shift(by=1, twice=True)"], found["shift(by=2, twice=True)"]
    assert isinstance(one, Quantity)
    assert isinstance(two, Quantity)
    assert one.value == pytest.approx(1.0, abs=0.3)
    assert two.value == pytest.approx(2.0, abs=0.3)


def test_missing_and_failed_seeds_are_shown_not_averaged_away(toy: Toy) -> None:
    skipped = [f"shift(by=1, twice=True) on one seed {seed}" for seed in range(3)]
    skipped.append("shift(by=2, twice=True) on one seed 2")
    table = only_table(toy, fail=("shift(by=2, twice=True) on one seed 1",), skip=tuple(skipped))
    rows = {str(row.values["method"]): row for row in table.rows}
    broken = rows["shift(by=2, twice=True)"]
    assert (broken.values["seeds"], broken.values["failed"]) == ("1/3", "1")
    notes = [table.notes[number - 1] for number in broken.notes]
    one_seed = "One seed: interval and test are over items only and do not say what another seed would give."
    assert notes == [
        f"error: {one_seed}", f"error(2): {one_seed}", "Seed 1 failed: it did not converge",
        "1 of 3 seeds have not been run.",
    ]  # fmt: skip
    never = rows["shift(by=1, twice=True)"]
    assert (never.values["seeds"], never.values["error"]) == ("0/3", None)
    # It is still compared with its baseline, on the one seed both have.
    assert isinstance(broken.values["error difference"], Quantity)


def test_results_of_older_code_are_marked(toy: Toy) -> None:
    scope, ledger = fill(toy)
    older = replace(scope, points=[replace(point, version="other") for point in scope.points])
    (table,) = tabulate(older, ledger)
    assert all("another version" in table.notes[row.notes[-1] - 1] for row in table.rows)


def test_another_limit_or_model_is_another_table(toy: Toy) -> None:
    scope, ledger = fill(toy)
    for other in (replace(scope, limit=5), Scope.of(scope.suite, model="two")):
        (table,) = tabulate(other, ledger)
        assert {row.values["seeds"] for row in table.rows} == {"0/3"}


def test_scores_of_two_protocols_are_never_mixed() -> None:
    one = ScoreSet.stack([scores(np.arange(40.0))], [0])
    other = ScoreSet.stack([scores(np.arange(40.0), signature="error|v:2")], [0])
    found = evaluate([one, other], [None, 0])
    assert found[1].difference is None
    assert "v:1 / v:2" in found[1].problem


def test_rows_are_compared_on_the_seeds_both_have() -> None:
    """Seed effects far larger than the difference: pairing seed 1 with seed 2 would show nothing."""
    rng = np.random.default_rng(0)
    values = {seed: rng.normal(100.0 * seed, 1, ITEMS) for seed in range(3)}
    base = ScoreSet.stack([scores(values[seed]) for seed in range(3)], range(3))
    part = ScoreSet.stack([scores(values[seed] + 1 + rng.normal(0, 0.1, ITEMS)) for seed in (1, 2)], (1, 2))
    (_, found) = evaluate([base, part], [None, 0])
    assert found.difference is not None
    assert found.difference.difference == pytest.approx(1.0, abs=0.05)
    assert found.difference.seeds == 2


def test_no_common_seed_is_said() -> None:
    base = ScoreSet.stack([scores(np.arange(40.0))], [0])
    other = ScoreSet.stack([scores(np.arange(40.0))], [1])
    assert "no seed" in evaluate([base, other], [None, 0])[1].problem


def test_intervals_end_where_the_metric_does() -> None:
    """Ten seeds near the top of Kendall's tau: the interval of their mean would go beyond 1."""
    values = [0.1, *[1.0] * 9]
    seeds = ScoreSet.stack([Scores(ids=["space"], values=np.array([one]), signature="s") for one in values], range(10))
    free = evaluate([seeds], [None])[0].interval
    cut = evaluate([seeds], [None], bounds=registry.get("kendall_tau", "metric").bounds)[0].interval
    assert free.high > 1
    assert (cut.low, cut.high) == (free.low, 1)


def test_a_margin_on_a_perplexity_is_in_its_own_unit() -> None:
    """At a perplexity of e**2 an interval of +-0.0065 of the logarithm is one of +-0.048."""
    values = np.full(ITEMS, 2.0)
    near = values + np.resize([-0.02, 0.02], ITEMS)
    sets = [ScoreSet.stack([scores(one, summary="exp_mean")], [0]) for one in (values, near)]
    for margin, verdict in ((0.1, "equivalent"), (0.02, "inconclusive")):
        found = evaluate(sets, [None, 0], margin)[1].difference
        assert found is not None
        assert 0.005 < found.high < 0.008
        assert found.verdict == verdict


def test_labels_of_metrics(toy: Toy) -> None:
    (problem,) = load_suite(toy.write(SUITE, metrics='[error, "error(power=[2, 3])"]')).problems()
    labels = metric_labels(problem)
    assert labels == ["error", "error(power=2)", "error(power=3)"]
    assert labels == [call.label for call in next(iter(plan_suite(load_suite(toy.folder / "toys.yaml")))).metrics][:3]
    assert list(short_names(labels).values()) == ["error", "error(2)", "error(3)"]
    assert short_names(["ppl(data=a, context=9)"]) == {"ppl(data=a, context=9)": "ppl"}


TABLE = Table(
    "toys",
    "one",
    {"model": "one", "data": {"name": "x", "rows": 3}},
    [
        Column("method", "method", text=True),
        Column(BITS, "bits/weight"),
        Column("a", "alpha ↓", group="a"),
        Column("a difference", "Δ", group="a"),
        Column("b", "beta ↑", "%", group="b"),
        Column("seeds", "seeds", text=True),
    ],
    [
        Row("m", {"k": 1}, {"method": "m(k=1)", BITS: Quantity(4.25), "a": Quantity(1.2346, 1.2, 1.3),
                            "a difference": "baseline", "b": Quantity(float("inf")), "seeds": "2/2"}),
        Row("m", {"k": 2}, {"method": "m(k=2)", BITS: Quantity(3.0), "a": Quantity(2.0, 1.9, 2.1),
                            "a difference": Quantity(0.7, 0.6, 0.8, "worse", signed=True), "b": None,
                            "seeds": "1/2"}, (2,)),
    ],
    ["Signature a|b|c.", "Seed 1 failed: no, really"],
    general=1,
)  # fmt: skip


def test_markdown() -> None:
    lines = render([TABLE], "markdown").splitlines()
    assert lines[0] == "# toys"
    assert "| method | bits/weight | alpha ↓ | Δ | beta ↑ (%) | seeds |" in lines
    assert "| m(k=1) | 4.250 | 1.235 [1.200, 1.300] | baseline | inf | 2/2 |" in lines
    assert "| m(k=2) [2] | 3.000 | 2.00 [1.90, 2.10] | +0.70 [+0.60, +0.80] worse | - | 1/2 |" in lines
    assert lines[-2:] == ["1. Signature a|b|c.", "2. Seed 1 failed: no, really"]


def test_pipes_in_cells_do_not_cut_a_markdown_row() -> None:
    row = Row("m", {}, {"method": "m(k='a|b')"})
    line = render([replace(TABLE, rows=[row])], "markdown").splitlines()[6]
    assert line.count("|") - line.count(r"\|") == len(TABLE.columns) + 1


def test_csv_reads_back_unrounded() -> None:
    rows = list(csv.DictReader(io.StringIO(render([TABLE], "csv"))))
    assert float(rows[0]["a"]) == 1.2346
    assert (rows[1]["a difference_low"], rows[1]["a difference_verdict"]) == ("0.6", "worse")
    assert rows[0]["a difference"] == "baseline"
    assert (rows[0]["b"], rows[1]["b"]) == ("", "")
    assert rows[1]["notes"] == "Seed 1 failed: no, really"
    assert json.loads(rows[1]["parameters"]) == {"k": 2}


def test_json_reads_back_unrounded() -> None:
    (table,) = json.loads(render([TABLE], "json"))["tables"]
    assert table["rows"][1]["values"]["a difference"] == {"value": 0.7, "low": 0.6, "high": 0.8, "verdict": "worse"}
    assert table["rows"][0]["values"]["b"] == {"value": None}
    assert table["problem"] == TABLE.problem


def test_an_unknown_format_names_those_there_are() -> None:
    with pytest.raises(BadInput, match="did you mean markdown"):
        render([TABLE], "markdwn")


def printed(width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO(), no_color=True)
    print_tables([TABLE], console)
    return console.export_text()


def test_a_narrow_terminal_gets_one_table_a_metric_and_one_of_the_rest() -> None:
    wide, narrow = printed(200), printed(62)
    heads = [[line for line in text.splitlines() if line.strip().startswith("method")] for text in (wide, narrow)]
    assert [len(lines) for lines in heads] == [1, 3]
    assert max(map(len, narrow.splitlines())) <= 62
    for text in (wide, narrow):
        for shown in (
            "1.235",
            "[1.200, 1.300]",
            "+0.70 worse",
            "[+0.60, +0.80]",
            "4.250",
            "[2] Seed 1 failed: no, really",
        ):
            assert shown in text


def test_files_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_files([TABLE], tmp_path / "toys")
    assert [path.name for path in paths] == [f"table.{form.extension}" for form in FORMATS.values()]
    before = [path.read_text() for path in paths]

    def full(self: Path, *_: object, **__: object) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(BadInput, match=r"table.md: cannot be written: No space left"):
        write_files([replace(TABLE, title="other")], tmp_path / "toys")
    assert [path.read_text() for path in paths] == before
    assert sorted(path.name for path in (tmp_path / "toys").iterdir()) == sorted(path.name for path in paths)


def test_bibtex_entries_are_cut_out_by_their_braces() -> None:
    text = "@article{a1,\n title = {{A} b},\n}\n\n@book{a12, title={C}}\n"
    assert find(text, "a1") == "@article{a1,\n title = {{A} b},\n}"
    assert find(text, "a12") == "@book{a12, title={C}}"
    assert find(text, "a") is None


def test_a_problem_in_a_line_has_nothing_of_python_in_it() -> None:
    problem = {"model": "tiny", "tasks": [{"dataset": "a-b"}, {"dataset": "c", "train": 40}], "digits": [0, 1]}
    assert problem_line(Table("s", "t", problem, [], [])) == (
        "model: tiny, tasks: [(dataset=a-b), (dataset=c, train=40)], digits: [0, 1]"
    )
