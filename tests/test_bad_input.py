"""Bad input gets one line that names it, exit status 2, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import bad_input_results  # noqa: F401  (their cases join the table's)
import bad_input_tracks  # noqa: F401
import pytest
from bad_input_table import CASES, Case, run_case


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.title)
def test_bad_input(one: Case, tmp_path: Path) -> None:
    outcome = run_case(one, tmp_path)
    error = outcome.result.exception
    assert isinstance(error, SystemExit), error
    assert outcome.result.exit_code == 2, outcome.result.output
    lines = outcome.result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("harness: ")
    missing = [word for word in one.says if word not in lines[0]]
    assert not missing, lines[0]
    assert outcome.result.stdout == ""
    assert outcome.written == []
