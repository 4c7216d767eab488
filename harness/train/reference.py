"""Training of the small reference models by their recipes: `suites/reference/<name>.py`.

A recipe is a module with a function `train(run) -> Report`: it trains, writes the model's files into `run.folder`, and
reports what it measured. Recipes are found by looking into that package; nothing here names one.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from harness.errors import BadInput, nearest
from harness.train.loop import Fitted

PACKAGE = "suites.reference"


@dataclass(frozen=True)
class Run:
    """What a recipe is handed: where its files go, and where work that can be resumed is kept."""

    name: str
    folder: Path
    cache: Path

    @property
    def checkpoint(self) -> Path:
        return self.cache / "checkpoint.pt"

    @staticmethod
    def tag(recipe: Mapping[str, Any], data: Sequence[tuple[str, str]]) -> str:
        """What a checkpoint is of: a hash of the hyper-parameters and of the data."""
        return hashlib.sha256(json.dumps([recipe, data]).encode()).hexdigest()


@dataclass(frozen=True)
class Report:
    """What a recipe tells about its model, for the card.

    `data`: (name, content hash); `measured`: (what, value); `recipe`: the hyper-parameters.
    """

    title: str
    about: str
    data: Sequence[tuple[str, str]]
    recipe: Mapping[str, Any]
    measured: Sequence[tuple[str, str]]
    fitted: Fitted
    license: str
    notes: Sequence[str] = field(default_factory=list)


def names() -> list[str]:
    """The reference models that have a recipe. Recipes are recognised by their text, without being imported."""
    package = importlib.import_module(PACKAGE)
    files = [file for folder in package.__path__ for file in Path(folder).glob("*.py")]
    return sorted(file.stem.replace("_", "-") for file in files if "\ndef train(run" in file.read_text())


def train_reference(
    name: str, *, out: Path | str | None = None, fresh: bool = False, threads: int = 2, cache: Path | str | None = None
) -> Path:
    """Train a reference model by its recipe and write its folder (by default where the committed weights are).

    A run that was stopped continues from its checkpoint in `cache`; `fresh` throws that away. The result depends on
    `threads`, because the order of summation does. Returns the folder. Raises BadInput for an unknown name, data that
    is not at hand, or a checkpoint of another version of the recipe.
    """
    name = name.replace("_", "-")
    if name not in names():
        raise BadInput(f"unknown reference model {name!r}; {nearest(name, names())}")
    recipe = _module(name)
    folder = Path(out) if out else Path(str(recipe.__file__)).parent / name
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give one to write {name} to")
    kept = Path(cache) if cache else _cache_root() / name
    if fresh:
        shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True, exist_ok=True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory(dir=kept) as work:
            run = Run(name, Path(work), kept)
            report = recipe.train(run)
            (run.folder / "README.md").write_text(_card(name, report, threads))
            folder.mkdir(parents=True, exist_ok=True)
            for file in run.folder.iterdir():
                shutil.copyfile(file, folder / file.name)  # with the usual permissions, not the temporary ones
    finally:
        torch.set_num_threads(before)
    return folder


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name.replace('-', '_')}")


def _cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness" / "reference"


def _card(name: str, report: Report, threads: int) -> str:
    """The model card: a README.md with the front matter that the Hub reads."""
    budget, minutes = report.fitted.passes, report.fitted.seconds / 60
    hardware = f"{platform.machine()} CPU, {threads} threads, torch {torch.__version__.partition('+')[0]}"
    trained = [
        ("updates", f"{budget.steps:,}"),
        ("samples forward / backward", f"{budget.forward:,} / {budget.backward:,}"),
        ("wall time", f"{minutes:.1f} minutes"),
        ("hardware", hardware),
        *((key.replace("_", " "), str(value)) for key, value in report.recipe.items()),
    ]
    parts = [
        f"---\nlicense: {report.license}\n---\n\n# {report.title}\n\n{report.about}",
        f"Made again by\n\n    harness train-reference {name} --fresh\n\n"
        "which gives the same weights, bit for bit, on the same machine with the same number of threads; elsewhere "
        "sums are rounded in another order.",
        "## Quality\n\n" + _table(("measured", "value"), report.measured),
        "## Data\n\n" + _table(("data", "sha256"), report.data),
        "## Training\n\n" + _table(("", ""), trained),
        *(["## Notes\n\n" + "\n".join(f"- {note}" for note in report.notes)] if report.notes else []),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {left} | {right} |" for left, right in rows)])
