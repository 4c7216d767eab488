"""The cache of what takes long to make: made once, never half-written, never stale."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from harness import cache
from harness.errors import BadInput


@pytest.fixture
def calls(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "cache"))
    return []


def make(calls):
    def once():
        calls.append(1)
        return {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.tensor(len(calls))}

    return once


def test_made_once_and_read_back_the_same(calls, tmp_path):
    first, second = (cache.cached({"seed": 1}, make(calls)) for _ in range(2))
    assert len(calls) == 1
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {file.suffix for file in (tmp_path / "cache").iterdir()} <= {".safetensors", ".lock"}


def test_another_key_or_other_code_is_made_anew(calls, monkeypatch):
    cache.cached({"seed": 1}, make(calls))
    cache.cached({"seed": 2}, make(calls))
    monkeypatch.setattr(cache, "_code", lambda: "changed")
    cache.cached({"seed": 1}, make(calls))
    assert len(calls) == 3


def test_a_damaged_file_is_made_again(calls):
    cache.cached({"seed": 1}, make(calls))
    file = cache.folder() / f"{cache.digest({'seed': 1})}.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    assert int(cache.cached({"seed": 1}, make(calls))["b"]) == 2
    assert int(cache.cached({"seed": 1}, make(calls))["b"]) == 2


def test_a_making_that_fails_leaves_nothing(calls):
    with pytest.raises(ZeroDivisionError):
        cache.cached({"seed": 1}, lambda: 1 / 0)
    assert [file for file in cache.folder().iterdir() if file.suffix != ".lock"] == []
    assert len(cache.cached({"seed": 1}, make(calls))) == 2  # and holds no lock


def test_of_two_processes_one_makes_and_the_other_waits(calls):
    code = """
import sys, time, torch
from harness import cache
def make():
    print("made", flush=True)
    time.sleep(1)
    return {"a": torch.ones(2)}
print(cache.cached({"seed": 5}, make)["a"].tolist())
"""
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert sum(one.count("made") for one in said) == 1
    assert all("[1.0, 1.0]" in one for one in said)


def test_a_folder_that_cannot_be_written_is_named(calls, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "file" / "cache"))
    with pytest.raises(BadInput, match=r"HARNESS_CACHE.*cannot be written"):
        cache.cached({"seed": 1}, make(calls))
