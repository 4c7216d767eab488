"""A toy track for tests of the engine: tests/toy, copied so that a test may edit it."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness import registry, tracks
from harness.engine import suite as suite_module

HERE = Path(__file__).parent / "toy"
SUITE = """\
suite: toys
title: Toys
track: toy
models: [one]
problem: {size: 4}
methods: ["shift(by=[1, 2])", noise]
metrics: [error]
seeds: 2
"""


class Toy:
    """A folder with the toy track in it, in which a suite can be written and run."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.code = folder / "toy"
        self.log = folder / "toy.log"

    def write(self, text: str = SUITE, name: str = "toys.yaml", **changes: str) -> Path:
        """A suite file: `text` with the lines of some fields replaced or added."""
        lines = text.splitlines()
        for field, value in changes.items():
            kept = [line for line in lines if not line.startswith(f"{field}:")]
            lines = [*kept, f"{field}: {value}"]
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n")
        return path

    def runs(self) -> list[str]:
        """What was solved so far, one line each."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def reload(self) -> None:
        """Read the toy modules again, as a new process would."""
        registry.forget()
        for name in [name for name in sys.modules if name.startswith(("toy_methods", "harness.tracks.toy"))]:
            del sys.modules[name]

    def start(self, code: str) -> subprocess.Popen[str]:
        """A Python process of its own that knows the toys."""
        pipe = subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-P", "-c", code]
        # A shell's background job ignores interrupts, and so would what it starts.
        interruptible = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
        return subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=self.folder, preexec_fn=interruptible
        )


@pytest.fixture(name="toy")
def toy_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The toy track, alone in the registry of this process and of the workers it starts."""
    toy = Toy(tmp_path)
    shutil.copytree(HERE, toy.code, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOY_LOG", str(toy.log))
    monkeypatch.delenv("HARNESS_LEDGER", raising=False)
    monkeypatch.syspath_prepend(str(toy.code))
    monkeypatch.setattr(tracks, "__path__", [*tracks.__path__, str(toy.code / "tracks")])
    monkeypatch.setattr(registry, "_entries", {})
    monkeypatch.setattr(registry, "_discovered", False)
    monkeypatch.setattr(registry, "TRACKS", ("toy",))
    monkeypatch.setattr(registry, "_packages", lambda: ("toy_methods",))
    monkeypatch.setattr(suite_module, "TRACKS", ("toy",))
    toy.reload()
    return toy
