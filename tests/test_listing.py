"""`harness list methods` by track."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.errors import BadInput
from harness.registry import TRACKS


def listed(*arguments: str) -> list[dict]:
    result = CliRunner().invoke(main, ["list", *arguments, "--json"], catch_exceptions=False, standalone_mode=False)
    return [json.loads(line) for line in result.output.splitlines()]


def test_methods_stand_by_track_and_can_be_cut_to_one():
    rows = listed("methods")
    order = [(TRACKS.index(row["track"]), row["name"]) for row in rows]
    assert order == sorted(order)
    assert {row["track"] for row in rows} == set(TRACKS)
    policies = listed("methods", "--track", "policy")
    assert policies == [row for row in rows if row["track"] == "policy"]
    assert {"average", "reg_meta"} <= {row["name"] for row in listed("methods", "--track", "predict")}
    assert all(row["track"] == "merge" for row in listed("suites", "--track", "merge"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["methods", "--track", "polcy"], "--track 'polcy' is not accepted; did you mean policy or latency?"),
        (["models", "--track", "policy"], "--track goes with methods and suites; models belong to no track"),
    ],
)
def test_a_track_that_does_not_apply_is_refused(arguments, message):
    with pytest.raises(BadInput) as caught:
        listed(*arguments)
    assert str(caught.value) == message
