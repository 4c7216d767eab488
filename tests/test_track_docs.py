"""The examples of docs/tracks: each a method that keeps the contract, and a suite that can be planned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import registry
from harness.check import check
from harness.engine.plan import plan_suite
from harness.engine.suite import load_suite

DOCS = sorted((Path(__file__).parents[1] / "docs" / "tracks").glob("*.md"))
LINES = 40


def block(path: Path, language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{path.name} has {len(found)} blocks of {language}"
    return found[0]


@pytest.fixture
def example(request, tmp_path):
    """The example's method in a file of its own; forgotten afterwards."""
    registry.discover()
    before = set(registry._entries)
    path = tmp_path / "example.py"
    path.write_text(block(request.param, "python"))
    yield request.param, path
    for key in set(registry._entries) - before:
        registry._entries.pop(key)


@pytest.mark.parametrize("example", DOCS, indirect=True, ids=lambda path: path.stem)
def test_the_example_keeps_the_contract_and_its_suite_can_be_planned(example, tmp_path, request):
    document, path = example
    assert len(path.read_text().splitlines()) <= LINES
    suite = tmp_path / "suite.yaml"
    suite.write_text(block(document, "yaml"))
    report = check(str(path))
    assert report.ok, "\n".join(f"{row.check}: {row.detail}" for row in report.rows if not row.ok)
    loaded = load_suite(suite)
    assert loaded.track == document.stem
    if re.search(r"dataset: (?!digits|diabetes|synthetic-lm)", suite.read_text()):
        request.getfixturevalue("mirror")
    assert len(plan_suite(loaded)) > 0


def test_every_track_has_an_example():
    assert {path.stem for path in DOCS} == set(registry.TRACKS) - {"compress"}
