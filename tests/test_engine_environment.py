"""What is recorded of the machine, and what a trial costs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from harness.engine import environment as environment_module
from harness.engine import usage
from harness.engine.environment import commit_of, cores, environment
from harness.engine.usage import Meter


def test_an_environment_says_what_can_change_a_result() -> None:
    found = environment(jobs=2, threads=3)
    assert (found["jobs"], found["threads"]) == (2, 3)
    assert found["packages"]["numpy"] == np.__version__
    assert found["cores"] == cores() >= 1
    assert found["memory_gb"] > 0
    assert found["cpu"]
    assert found["simd"] in (*environment_module._SIMD, "none")


def test_an_environment_names_no_host_and_no_folder() -> None:
    text = json.dumps(environment())
    assert os.uname().nodename not in text
    assert str(Path.cwd()) not in text
    assert str(Path.home()) not in text


def test_the_best_vector_instructions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = "model name\t: Some CPU\nflags\t\t: fpu avx avx2 avx512f\n\nprocessor: 1\nflags: avx512_vnni\n"
    monkeypatch.setattr(Path, "read_text", lambda *_: cpuinfo)
    assert environment_module.cpu() == {"cpu": "Some CPU", "simd": "avx512f"}


def test_time_and_memory_are_those_between_two_readings() -> None:
    before = Meter().read()["peak_memory_bytes"]["value"]
    meter = Meter()
    eaten = np.ones(1 << 24)
    time.sleep(0.05)
    del eaten
    spent = meter.read()
    assert spent["wall_seconds"]["value"] >= 0.05
    assert spent["cpu_seconds"]["value"] > 0
    assert spent["peak_memory_bytes"]["value"] > before + 100e6
    if spent["peak_memory_bytes"]["kind"] == "measured":
        assert Meter().read()["peak_memory_bytes"]["value"] < before + 100e6


def test_energy_is_read_from_every_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters wrap around at their range; two packages are summed; microjoules become joules."""
    monkeypatch.setattr(usage, "_RAPL", tmp_path)
    for package, start in enumerate((1_000_000, 9_000_000)):
        folder = tmp_path / f"intel-rapl:{package}"
        folder.mkdir()
        (folder / "energy_uj").write_text(f"{start}\n")
        (folder / "max_energy_range_uj").write_text("10000000\n")
    meter, shared = Meter(), Meter(alone=False)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("3000000\n")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("500000\n")
    assert meter.read()["energy_joules"] == {"value": 3.5, "kind": "measured"}
    assert shared.read()["energy_joules"]["kind"] == "proxy"


def test_energy_that_cannot_be_read_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_RAPL", tmp_path)
    assert Meter().read()["energy_joules"] == {"value": None, "kind": "missing"}


def test_a_changed_source_is_told_and_a_written_table_is_not(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    for name in ("source.py", "results/suite/table.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    head = commit_of(tmp_path)
    assert head is not None
    assert len(head) == 40
    (tmp_path / "results/suite/table.md").write_text("two\n")
    assert commit_of(tmp_path) == head
    (tmp_path / "source.py").write_text("two\n")
    assert commit_of(tmp_path) == f"{head}+"
