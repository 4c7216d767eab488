"""The benchmark of the GPU kernels, driven on the CPU: its times mean nothing there, how they are put together does."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

pytest.importorskip("harness_kernels.gpu", reason="harness_kernels is not installed: pip install ./kernels")

from harness_kernels.gpu import bench, emulate, launch, peers, registry

from harness.cli import main

pytestmark = pytest.mark.skipif(shutil.which(os.environ.get("CXX") or "g++") is None, reason="needs a C++ compiler")
command = importlib.import_module("harness.cli.kernels")
SMALL = {"m": 16, "n": 128}


class Event:
    """A CUDA event of a device that works while the host does."""

    def __init__(self, enable_timing: bool):
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return 1e3 * (end.at - self.at)


@pytest.fixture
def no_gpu(monkeypatch):
    """torch.cuda's names on the CPU; a work of two kernels and a peer."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(L2_cache_size=1 << 12))
    monkeypatch.setattr(bench, "COPIED", 1 << 12)
    monkeypatch.setattr(bench, "PRODUCT", 32)
    chosen = [kernel for kernel in registry.kernels() if kernel.name in ("gemv 4 bits", "gemv 2:4")]
    assert len(chosen) == 2
    with emulate.emulation():
        yield [replace(kernel, timed={"small": SMALL}, compared=("cuBLAS bf16",)) for kernel in chosen]


def test_kernels_of_one_work_share_their_rounds(no_gpu):
    rows = list(bench.measure(no_gpu, rounds=3, device="cpu"))
    assert {row.name for row in rows} == {"gemv 4 bits", "gemv 2:4"}
    for row in rows:
        assert row.work == "small"
        assert row.seconds > 0
        assert 0 < row.of_copy < float("inf")
        assert set(row.ratios) == {"cuBLAS bf16"}
        assert row.operations == 2 * 16 * 128
    # 16 x 128 codes of 4 bits, a scale and half a byte of zero point for each row, activations and outputs.
    four_bits = next(row for row in rows if row.name == "gemv 4 bits")
    assert four_bits.moved == 16 * 64 + 16 * 2 + 8 + 128 * 2 + 16 * 2


def test_shares_and_ratios_are_those_of_the_rounds():
    one = bench.Contender("ours", [], 100, 40, times=[1.0, 2.0, 4.0])
    copy = bench.Contender("copy", [], 400, 0, times=[2.0, 4.0, 8.0])
    product = bench.Contender("product", [], 1, 80, times=[1.0, 2.0, 4.0])
    peer = bench.Contender("peer", [], 1, 1, times=[3.0, 6.0, 16.0])
    row = bench._row("work", one, {"peer": peer}, copy, product)
    assert (row.seconds, row.of_copy, row.of_rate, row.ratios) == (2.0, 0.5, 0.5, {"peer": 3.0})


def test_inputs_are_rotated_past_the_cache():
    kernel = next(kernel for kernel in registry.kernels() if kernel.name == "gemv 4 bits")
    case = kernel.make(torch.Generator().manual_seed(0), **SMALL)
    used = []
    recorded = replace(case, run=lambda *given: used.append([t.data_ptr() for t in given if t is not None]))
    calls = bench._rotated(recorded, cache=3 * case.moved)
    for call in calls:
        call()
    assert len(calls) == 4
    pointers = [pointer for call in used for pointer in call]
    assert len(set(pointers)) == len(pointers)


def test_rounds_run_forwards_and_backwards():
    order: list[str] = []

    class Recorded(bench.Contender):
        def time(self) -> float:
            order.append(self.name)
            return 1.0

    contenders = [Recorded(name, [], 0, 0) for name in "ab"]
    bench._run(contenders, 2)
    assert "".join(order) == "abba" * ((bench.WARM_UP + 2) // 2)
    assert [len(c.times) for c in contenders] == [2, 2]


def test_calls_are_captured_where_they_can_be(monkeypatch):
    captured = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: captured.append("replayed")))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    calls: list[int] = []
    contender = bench.Contender("one", [lambda: calls.append(1)], 0, 0)
    contender.prepare()
    assert len(calls) == 1 + bench.CALLS
    contender.time()
    assert captured == ["replayed"]
    assert len(calls) == 1 + bench.CALLS


def test_the_command_prints_a_table_and_json(no_gpu, monkeypatch):
    monkeypatch.setattr(launch, "need_device", lambda: None)
    monkeypatch.setattr(launch, "need_cupy", lambda: None)
    monkeypatch.setattr(launch, "need_triton", lambda family: None)
    monkeypatch.setattr(command, "_chosen", lambda only: no_gpu)
    monkeypatch.setattr(command, "_machine", lambda: {"device": "none", "torch": "2", "cuda": "13"})
    measure = bench.measure
    monkeypatch.setattr(bench, "measure", lambda chosen, rounds: measure(chosen, rounds=rounds, device="cpu"))
    done = CliRunner().invoke(main, ["kernels", "bench", "--rounds", "1"])
    assert done.exit_code == 0, done.output
    assert "% of copy" in done.output
    assert "times cuBLAS bf16" in done.output
    done = CliRunner().invoke(main, ["kernels", "bench", "--rounds", "1", "--json"])
    rows = [json.loads(line) for line in done.output.splitlines()]
    assert {row["name"] for row in rows} == {"gemv 4 bits", "gemv 2:4"}
    assert set(rows[0]) >= {"work", "seconds", "of_copy", "of_rate", "ratios", "device"}


def test_a_peer_that_this_torch_lacks_is_left_out():
    generator = torch.Generator().manual_seed(0)
    made = peers.int4pack(generator, {"m": 64, "n": 256})
    if made is not None:
        made.run(*made.inputs, made.out)
    cublas = peers.cublas(generator, {"m": 8, "n": 16, "rows": 2})
    cublas.run(*cublas.inputs, cublas.out)
    assert torch.allclose(cublas.out.float(), (cublas.inputs[0].float() @ cublas.inputs[1].float().T), atol=0.1)
