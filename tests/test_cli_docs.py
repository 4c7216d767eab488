"""What the documents say works as written."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.tables.bibliography import find

ROOT = Path(__file__).parents[1]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The method of CONTRIBUTING.md in a file of its own."""
    (source,) = blocks("CONTRIBUTING.md", "python")
    path = tmp_path_factory.mktemp("contributing") / "ternary_weights.py"
    path.write_text(source)
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which forgets the example's method."""
    return subprocess.run([sys.executable, "-m", "harness", *arguments], capture_output=True, text=True, cwd=ROOT)


def test_the_example_method_keeps_the_contract(example: Path) -> None:
    done = run("check", str(example), "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, [row for row in rows if not row["ok"]]
    assert {row["method"] for row in rows} == {"ternary_weights"}
    assert len(rows) >= 8


def test_the_example_method_is_the_papers(example: Path) -> None:
    """By hand: mean magnitude 2, threshold 1.4; the weights above it are 2, 3 and 5, in magnitude 10/3."""
    import torch

    from harness import LayerProblem, registry

    (entry,) = registry.load_file(example)
    registry._entries.pop(entry.key)
    weight = torch.tensor([[1.0, -2.0, 3.0], [-5.0, 1.0, 0.0]])
    packed = entry(LayerProblem("layer", weight, generator=torch.Generator()))
    value = torch.tensor(10 / 3).half().float()
    assert packed.dequantize().tolist() == (torch.tensor([[0.0, -1, 1], [-1, 0, 0]]) * value).tolist()


def test_the_example_passes_the_linter(example: Path) -> None:
    subprocess.run([sys.executable, "-m", "ruff", "check", "--config", ROOT / "pyproject.toml", example], check=True)


def test_the_example_suite_is_read(example: Path, tmp_path: Path) -> None:
    from harness import registry
    from harness.engine.suite import load_suite
    from harness.tables.build import Scope

    (text,) = blocks("CONTRIBUTING.md", "yaml")
    path = tmp_path / "my-suite.yaml"
    path.write_text(text)
    (entry,) = registry.load_file(example)
    try:
        points = [str(point) for point in Scope.of(load_suite(path)).points]
    finally:
        registry._entries.pop(entry.key)
    assert points[-1] == "ternary_weights(threshold=0.7)"


def test_the_example_paper_has_the_key_the_method_names(example: Path) -> None:
    (entry,) = blocks("CONTRIBUTING.md", "bibtex")
    (key,) = re.findall(r'paper="(\w+)"', example.read_text())
    assert find(entry, key) == entry.strip()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_commands_in_the_documents_are_ones_there_are(document: str) -> None:
    """Every `harness ...` line names a command, and every name it is given exists."""
    lines = [line.removeprefix("$ ") for block in blocks(document, "console") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("harness ")]
    assert commands
    for _, name, *arguments in commands:
        assert name in main.commands, name
        main.commands[name].make_context(name, list(arguments), resilient_parsing=False)
        if name in ("run", "table") and not arguments[0].endswith(".yaml"):
            assert CliRunner().invoke(main, ["show", arguments[0]]).exit_code == 0
        if name == "show":
            assert CliRunner().invoke(main, [name, *arguments]).exit_code == 0


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_no_block_of_the_documents_is_left_empty(document: str) -> None:
    assert all(len(block.split()) > 3 for block in blocks(document, r"\w+"))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_paths_in_the_documents_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:harness|methods|suites|tests|docs|results)/[\w./-]+)`", text)
    made_by_the_reader = {"methods/quantization/ternary_weights.py"}
    missing = [path for path in paths if not (ROOT / path).exists() and path not in made_by_the_reader]
    assert not missing


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_in_the_documents_are_ones_there_are(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^\$ )make ([a-z-]+)", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE))
    assert named
    assert named <= targets


def test_the_citation_file_is_valid() -> None:
    import yaml

    import harness

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == harness.__version__
    assert citation["license"] == "Apache-2.0"
    assert all({"name"} <= author.keys() or {"family-names"} <= author.keys() for author in citation["authors"])


def test_constraints_pin_what_the_project_asks_for() -> None:
    """Every dependency of the project has one pinned version that satisfies it, and no index or path is named."""
    import tomllib

    from packaging.requirements import Requirement

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {line.partition("==")[0]: line.partition("==")[2] for line in lines}
    assert all(re.fullmatch(r"[a-z0-9.-]+==[\w.]+", line) for line in lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["dev"], *extras["models"]]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[wanted.name.lower().replace("_", "-")], prereleases=True), text
