"""The suites of `scale: full`: every one of them is planned, or says in a line what is missing and how to get it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.engine.suite import load_suite, names

FULL = [name for name in names() if load_suite(name).fields.scale == "full"]
TRAINED = {"train", "adapt", "merge", "distill", "search", "continual", "generate", "predict", "policy"}
MISSING = r"harness: \S*{name}\.yaml:\d+: (model|dataset) \S+ is not at hand: .*({how}) .*\n"
HOW = "get it with: hf download|set HARNESS_DATA to"


def dry_run(name: str, folder: Path) -> Result:
    ledger = folder / "ledger.db"
    result = CliRunner().invoke(
        main, ["run", name, "--dry-run", "--seeds", "1", "--ledger", str(ledger)], prog_name="harness"
    )
    assert not ledger.exists()
    return result


def test_every_track_that_trains_has_one() -> None:
    assert {load_suite(name).track for name in FULL} >= TRAINED


@pytest.mark.parametrize("name", FULL)
def test_it_is_planned_where_the_data_is(name: str, mirror: Path, tmp_path: Path) -> None:
    """All data sets are in the mirror. Models from the Hub need not be here: then the line says how to get them."""
    result = dry_run(name, tmp_path)
    from_hub = any("/" in str(problem.spec.get("model", "")) for problem in load_suite(name).problems())
    if from_hub and result.exit_code == 2:
        assert re.fullmatch(MISSING.format(name=name, how=HOW), result.stderr), result.stderr
        assert ": model " in result.stderr
        return
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1] == f"{len(lines) - 1} to run"
    assert len(lines) > 1


@pytest.mark.parametrize("name", FULL)
def test_without_the_data_one_line_says_how_to_get_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    result = dry_run(name, tmp_path)
    if result.exit_code:  # some need what comes with Python packages alone
        assert result.exit_code == 2
        assert result.stdout == ""
        assert re.fullmatch(MISSING.format(name=name, how=HOW), result.stderr), result.stderr
