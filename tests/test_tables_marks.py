"""What a table says beside its numbers: best rows, null control, detectable differences, hardware, odd results."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from engine_toy import Toy, toy_fixture  # noqa: F401
from table_samples import ITEMS, SUITE, fill, scores

from harness import BadInput, Scores, registry
from harness.engine.plan import Trial
from harness.stats import ScoreSet
from harness.tables import Quantity, Table, render
from harness.tables.build import tabulate
from harness.tables.control import null_control
from harness.tables.hardware import require_same_machine
from harness.tables.model import BEST, TIED
from harness.tables.ranking import groups, mark

RNG = np.random.default_rng(0)
LEVEL = RNG.normal(10, 3, ITEMS)


def near(offset: float, noise: float = 0.2, seeds: int = 5, **fields: object) -> ScoreSet:
    """Scores of a method that is `offset` above the level."""
    rows = [scores(LEVEL + offset + RNG.normal(0, noise, ITEMS)) for _ in range(seeds)]
    return replace(ScoreSet.stack(rows, range(seeds)), **fields)  # type: ignore[arg-type]


def test_the_best_is_marked_and_what_cannot_be_told_from_it() -> None:
    sets = {0: near(0.5), 1: near(0.0), 2: near(0.01), 3: near(2.0)}
    assert mark(sets, [0, 1, 2, 3]) in ({1: BEST, 2: TIED}, {2: BEST, 1: TIED})
    higher = {at: replace(one, higher_is_better=True) for at, one in sets.items()}
    assert mark(higher, [0, 1, 2, 3]) == {3: BEST}


def test_marks_are_within_a_group_and_a_protocol() -> None:
    sets = {0: near(0.0), 1: near(1.0, signature="error|v:2"), 2: near(3.0)}
    assert mark(sets, [0, 1, 2]) == {0: BEST}
    assert mark(sets, [1, 2]) == {}
    assert mark(sets, [2]) == {}
    assert mark({**sets, 3: replace(near(0.0), seeds=(7, 8))}, [0, 3]) == {}


def test_rows_are_ranked_with_those_of_their_baseline() -> None:
    roles = ["reference", "method", "method", "method", "method", "control", "method"]
    assert groups([None, None, None, 1, 2, None, None], roles) == [[1, 3], [2, 4], [5, 6]]


def test_the_baseline_against_itself_with_other_seeds() -> None:
    shifts = [0.0, 1.0, 5.0]
    one = ScoreSet.stack([scores(LEVEL + shift) for shift in shifts], range(3))
    found = null_control({4: one, 7: near(0.0, noise=0.0, seeds=3)})
    assert found is not None
    assert (found.row, found.pairs, found.apart) == (4, 6, 3)
    assert found.difference == pytest.approx(-5.0)  # the last seed against the first
    same = null_control({0: near(0.0, noise=0.0, seeds=2)})
    assert same is not None
    assert (same.difference, same.pairs, same.apart) == (0.0, 1, 0)
    assert null_control({0: near(0.0, seeds=1)}) is None


def test_noise_between_seeds_is_rarely_told_apart() -> None:
    """The control of a test that holds its level: at most a few of 60 pairs before, none or one after Holm."""
    found = null_control({at: near(0.0, seeds=10) for at in range(6)})
    assert found is not None
    assert found.pairs == 60
    assert found.apart <= 1


def only(toy: Toy, **options: object) -> Table:
    scope, ledger = fill(toy, **options)  # type: ignore[arg-type]
    with closing(ledger):
        (table,) = tabulate(scope, ledger)
    return table


def test_every_table_tells_its_null_control_and_what_it_can_detect(toy: Toy) -> None:
    table = only(toy)
    notes = [note for note in table.notes if note.startswith("error:")]
    assert [note.partition(": ")[2].partition(" ")[0] for note in notes] == ["error|v:1", "smallest", "null"]
    assert "shift(by=" in notes[2]
    assert "of 6 such pairs" in notes[2]
    row = table.rows[3]
    assert isinstance(row.values["error difference"], Quantity)
    figures = [float(text) for text in notes[1].rstrip(".").rpartition(": ")[2].split(" to ")]
    assert all(0 < figure < 1 for figure in figures)


def test_a_method_chosen_at_random_is_marked_as_the_null_control(toy: Toy) -> None:
    registry.discover()
    for key, entry in list(registry._entries.items()):
        if entry.name == "noise":
            registry._entries[key] = replace(entry, role="control")
    text = SUITE.replace('"shift(by=[1, 2])"', '"shift(by=[1, 2])", noise')
    table = only(toy, text=text, skip=tuple(f"noise on one seed {seed}" for seed in range(3)))
    assert "| noise (null control)" in render([table], "markdown")
    assert any("noise: a null control" in note for note in table.notes)


PLACES = ({"cpu": "A", "threads": 1}, {"cpu": "B", "threads": 1})


def in_seconds(trial: Trial, taken: Scores) -> Scores:
    return replace(taken, unit="ms")


def test_times_of_two_machines_are_not_compared(toy: Toy) -> None:
    table = only(toy, change=in_seconds, place=lambda trial: PLACES[trial.point.params["twice"]])
    for row in table.rows[2:]:
        assert row.values["error difference"] is None
        assert "hardware differs in cpu: A / B" in table.notes[row.notes[0] - 1]
    assert not any(getattr(row.values["error"], "mark", "") for row in table.rows)


def test_seeds_of_two_machines_are_not_put_together(toy: Toy) -> None:
    table = only(toy, change=in_seconds, place=lambda trial: PLACES[trial.seed % 2])
    assert [column.key for column in table.columns].count("error") == 0
    assert "its seeds cannot be put together: hardware differs in cpu: A / B" in table.notes[table.rows[0].notes[0] - 1]


def test_what_does_not_depend_on_the_machine_is_compared_across_them(toy: Toy) -> None:
    table = only(toy, place=lambda trial: PLACES[trial.point.params["twice"]])
    assert isinstance(table.rows[2].values["error difference"], Quantity)
    assert any("Not of one machine: hardware differs in cpu: A / B" in note for note in table.notes)


def test_fields_in_which_machines_differ_are_named() -> None:
    with pytest.raises(BadInput, match=r"gpus: H100 / none, jobs: 2 / 1; only times"):
        require_same_machine({"gpus": [{"name": "H100"}], "jobs": 2}, {"gpus": [], "jobs": 1})


def test_one_seed_has_no_interval_over_seeds_and_no_control(toy: Toy) -> None:
    table = only(toy, text=SUITE.replace("seeds: 3", "seeds: 1"))
    assert any("one seed, so not over seeds" in note for note in table.notes)
    assert any("one seed, so that the baseline cannot be set against itself" in note for note in table.notes)
    assert isinstance(table.rows[2].values["error difference"], Quantity)


def test_a_single_score_a_seed_is_compared_over_seeds(toy: Toy) -> None:
    """Where the seed is the unit (a training), an item is one number and the null control has no interval."""
    table = only(toy, change=lambda trial, taken: Scores(["run"], taken.values[:1], taken.signature, unit="1"))
    difference = table.rows[2].values["error difference"]
    assert isinstance(difference, Quantity)
    assert difference.interval
    (note,) = [note for note in table.notes if note.startswith("error: null control")]
    assert "inf" not in note
    assert "0 of 6 such pairs" in note


def test_one_score_under_one_seed_is_shown_without_an_interval(toy: Toy) -> None:
    one = SUITE.replace("seeds: 3", "seeds: 1")
    table = only(toy, text=one, change=lambda trial, taken: Scores(["run"], taken.values[:1], taken.signature))
    estimate, difference = (table.rows[2].values[key] for key in ("error", "error difference"))
    assert isinstance(estimate, Quantity)
    assert isinstance(difference, Quantity)
    assert (estimate.interval, difference.interval, difference.word) == ("", "", "inconclusive")
    assert not any("nan" in str(note) or "inf" in str(note).replace("inconclusive", "") for note in table.notes)


def test_a_suite_of_failures_says_so(toy: Toy) -> None:
    labels = [f"shift(by={by}{twice}) on one seed {seed}" for by in (1, 2) for twice in ("", ", twice=True")
              for seed in range(3)]  # fmt: skip
    table = only(toy, fail=tuple(labels))
    assert table.notes[0] == "No trial has succeeded: 12 failed."
    assert {row.values["seeds"] for row in table.rows} == {"0/3"}
    assert all("it did not converge" in table.notes[row.notes[0] - 1] for row in table.rows)
    for form in ("markdown", "latex", "html", "csv", "json"):
        assert "did not converge" in render([table], form)
    never = only(toy, skip=tuple(labels))
    assert never.rows
