"""`harness claims`: one-sided tests of papers' claims on what the ledger has."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from engine_toy import Toy, toy_fixture  # noqa: F401
from table_samples import (
    SUITE,
    fill,
    quick_fixture,  # noqa: F401
)

from harness import Claim, Scores, registry
from harness.claims import Finding, judge, select
from harness.cli import main
from harness.engine.plan import Trial

pytestmark = pytest.mark.usefixtures("quick")

PLAIN = "shift(twice=false)"
FIVE = SUITE.replace("seeds: 3", "seeds: 5")


def claim(toy: Toy, **fields: object) -> None:
    """Give the toy method `shift` one claim; its rows with `twice` have an error greater by about `by`."""
    registry.discover()
    given = {"metric": "error", "than": PLAIN, "suite": str(toy.folder / "toys.yaml"), "params": {"twice": True},
             "paper": "their table 2: 1.0 against 2.0", **fields}  # fmt: skip
    for key, entry in list(registry._entries.items()):
        if entry.name == "shift":
            registry._entries[key] = replace(entry, claims=(Claim(**given),))  # type: ignore[arg-type]


def findings(toy: Toy, text: str = FIVE, **options: object) -> list[Finding]:
    _, ledger = fill(toy, text, **options)  # type: ignore[arg-type]
    with closing(ledger):
        return list(judge(select("shift"), ledger))


def higher(trial: Trial, taken: Scores) -> Scores:
    return replace(taken, higher_is_better=True)


def test_what_is_shown_is_supported(toy: Toy) -> None:
    claim(toy)
    found = findings(toy, change=higher)
    assert [(one.row, one.than, one.metric) for one in found] == [
        (f"shift(by={by}, twice=True)", f"shift(by={by}, twice=False)", metric)
        for metric in ("error", "error(2)") for by in (1, 2)
    ]  # fmt: skip
    assert {one.verdict for one in found} == {"supported"}
    assert all(one.adjusted_p < 0.05 and one.low > 0 and one.family == 4 for one in found)
    assert found[1].difference == pytest.approx(2.0, abs=0.3)


def test_the_opposite_is_not_supported(toy: Toy) -> None:
    claim(toy, metric="error(power=2)")
    found = findings(toy)
    assert [one.metric for one in found] == ["error(2)", "error(2)"]
    assert {one.verdict for one in found} == {"not supported"}
    assert all(one.adjusted_p > 0.9 and one.against_p < 0.05 for one in found)


def test_a_margin_is_part_of_the_claim(toy: Toy) -> None:
    """An improvement of about 1 is more than 0.5, and neither more nor less than 1 for certain, and less than 2."""
    verdicts = {}
    for margin in (0.5, 2.0):
        claim(toy, margin=margin, params={"twice": True, "by": 1})
        (toy.folder / "ledger.db").unlink(missing_ok=True)
        found = findings(toy, change=higher)
        verdicts[margin] = {one.verdict for one in found}
        assert found[0].difference == pytest.approx(1.0, abs=0.4)  # the effect itself, not what is left of it
    assert verdicts == {0.5: {"supported"}, 2.0: {"not supported"}}


def test_noise_is_inconclusive_and_says_what_would_be_found(toy: Toy) -> None:
    def alike(trial: Trial, taken: Scores) -> Scores:
        noise = np.random.default_rng([trial.seed, *map(ord, str(trial.point))]).normal(0, 1, len(taken.ids))
        return replace(taken, values=np.arange(float(len(taken.ids))) + noise)

    claim(toy)
    found = findings(toy, change=alike)
    assert {one.verdict for one in found} == {"inconclusive"}
    assert all(0 < one.detectable < 2 for one in found)


def test_what_the_suite_calls_negligible_does_not_support_a_claim(toy: Toy) -> None:
    def nearly(trial: Trial, taken: Scores) -> Scores:
        noise = np.random.default_rng([trial.seed, *map(ord, str(trial.point))]).normal(0, 0.01, len(taken.ids))
        return replace(taken, values=np.arange(float(len(taken.ids))) + noise)

    claim(toy)
    found = findings(toy, FIVE + "margins: {error: 0.5}\n", change=nearly)
    assert {one.verdict for one in found} == {"not supported"}


def test_a_margin_of_a_perplexity_is_in_its_own_unit(toy: Toy) -> None:
    """From a perplexity of e**2 = 7.39, log values lower by 0.1 are an improvement of 0.70."""

    def perplexity(trial: Trial, taken: Scores) -> Scores:
        noise = np.random.default_rng([trial.seed, *map(ord, str(trial.point))]).normal(0, 0.01, len(taken.ids))
        level = 1.9 if trial.point.params["twice"] else 2.0
        return replace(taken, values=level + noise, summary="exp_mean")

    verdicts = []
    for margin in (0.6, 0.8):
        claim(toy, metric="error(power=2)", margin=margin)
        (toy.folder / "ledger.db").unlink(missing_ok=True)
        found = findings(toy, change=perplexity)
        assert all(one.logarithm and one.difference == pytest.approx(-0.1, abs=0.01) for one in found)
        verdicts.append({one.verdict for one in found})
    assert verdicts == [{"supported"}, {"not supported"}]


def test_what_was_not_run_or_failed_says_why(toy: Toy) -> None:
    claim(toy, metric="error(power=2)")
    failing = tuple(f"shift(by=2, twice=True) on one seed {seed}" for seed in range(5))
    skipped = tuple(f"shift(by=1, twice=True) on one seed {seed}" for seed in range(5))
    found = findings(toy, fail=failing, skip=skipped)
    assert [one.verdict for one in found] == ["not run", "not run"]
    assert found[0].reason == "shift(by=1, twice=True): not run"
    assert "every seed ended badly (failed: it did not converge)" in found[1].reason


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"suite": "nowhere"}, "unknown suite 'nowhere'"), ({"params": {"by": 9}}, "has no row of shift(by=9)")],
)
def test_a_claim_that_fits_nothing_is_told_not_dropped(toy: Toy, fields: dict[str, object], says: str) -> None:
    claim(toy, **fields)
    (found,) = findings(toy)
    assert found.verdict == "not run"
    assert says in found.reason


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), prog_name="harness")


def test_the_command_prints_paper_effect_and_verdict(toy: Toy) -> None:
    claim(toy)
    fill(toy, FIVE)[1].close()
    result = harness("claims", "shift", "--no-run", "--ledger", "ledger.db")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith("shift(twice=True) is better than shift(twice=false) in error, ")
    assert lines[1] == "  the paper: their table 2: 1.0 against 2.0"
    assert lines[2].startswith(
        "  not supported: shift(by=1, twice=True) against shift(by=1, twice=False), error on one: Δ +"
    )
    assert "(40 items, 5 seeds), one-sided p = 1 after Holm's correction for 4" in lines[2]
    assert lines[-1] == "4 not supported"
    rows = [
        json.loads(line)
        for line in harness("claims", "--no-run", "--ledger", "ledger.db", "--json").output.splitlines()
    ]
    assert [row["verdict"] for row in rows] == ["not supported"] * 4
    assert rows[0]["paper"] == "their table 2: 1.0 against 2.0"


def test_without_a_ledger_nothing_was_run(toy: Toy) -> None:
    claim(toy)
    toy.write(FIVE)
    result = harness("claims", "--no-run")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "4 not run"
    assert not Path("results").exists()


def test_a_dry_run_shows_the_rows_that_claims_rest_on(toy: Toy) -> None:
    claim(toy, params={"twice": True, "by": 2})
    toy.write(SUITE)
    result = harness("claims", "shift", "--dry-run")
    assert result.output.splitlines()[-1] == "6 to run"
    assert not Path("results").exists()


def test_what_is_missing_is_run(toy: Toy) -> None:
    claim(toy, params={"twice": True, "by": 2})
    toy.write(SUITE)
    result = harness("claims", "shift", "--jobs", "1", "--ledger", "ledger.db")
    assert result.exit_code == 0, result.output
    assert len(toy.runs()) == 6
    assert result.output.splitlines()[-1] == "2 inconclusive"  # four items a trial: no p below 1/8
    assert "3 to run" in result.stderr
    again = harness("claims", "shift", "--jobs", "1", "--ledger", "ledger.db")
    assert len(toy.runs()) == 6
    assert again.stderr == ""


def test_an_unknown_name_is_one_line(toy: Toy) -> None:
    result = harness("claims", "shft")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "did you mean shift" in result.stderr


def test_the_methods_of_the_harness_have_claims_that_fit_their_suites() -> None:
    """Every registered claim finds its suite, its rows and its metric."""
    from harness.claims import pairs, scope_of
    from harness.engine.suite import names
    from harness.params import parse_expression
    from harness.tables.scope import metric_labels

    known = {entry.name: claim for entry, claim in select() if entry.name in ("gptq", "awq", "wanda", "fwsvd")}
    assert len(known) == 4
    for entry, one in select():
        assert one.suite in names()
        scope = scope_of(one)
        assert pairs(entry, one, scope)
        wanted = parse_expression(one.metric).name
        assert any(label.startswith(wanted) for problem in scope.problems for label in metric_labels(problem))
        assert one.paper
