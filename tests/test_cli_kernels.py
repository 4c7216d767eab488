"""`harness kernels`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from harness.cli import main

ROOT = Path(__file__).parents[1]
NEEDED = "harness_kernels is not installed: pip install ./kernels"
pytest.importorskip("harness_kernels.gpu", reason=NEEDED)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
needs_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX") or "g++") is None, reason="needs a C++ compiler")


def run(*arguments: str):
    return CliRunner().invoke(main, ["kernels", *arguments])


def fresh(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, from the checkout, without anything installed but what this interpreter has."""
    names = {**os.environ, "PYTHONPATH": f".{os.pathsep}kernels/src", **environment}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=names)


def test_every_kernel_is_listed():
    rows = [json.loads(line) for line in run("list", "--json").output.splitlines()]
    names = {row["name"] for row in rows}
    assert {f"gemv {bits} bits" for bits in (2, 3, 4, 8)} <= names
    assert {"gemm 4 bits", "hessian", "hadamard", "dfloat11 decode", "lookup sparse ternary", "gemv 2:4"} <= names
    assert {row["language"] for row in rows} == {"CUDA", "Triton"}
    assert len(run("list").output.splitlines()) == len(rows)


@without_gpu
@pytest.mark.parametrize("command", ["check", "bench"])
def test_without_a_gpu_one_line_and_status_2(command):
    done = run(command)
    assert done.exit_code == 2
    assert done.stderr.startswith("harness: no CUDA device; ")
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_a_name_that_no_kernel_has():
    done = run("list", "--only", "hadamrd")
    assert done.exit_code == 2
    assert "did you mean hadamard" in done.stderr


@needs_compiler
def test_kernels_are_checked_on_the_processor():
    pytest.importorskip("triton", reason="needs Triton: pip install triton")
    done = fresh("-m", "harness", "kernels", "check", "--device", "cpu", "--only", "hessian")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4 of 4 checks of 1 kernels hold\n"


WRONG = """
from dataclasses import replace
from harness_kernels.gpu import registry
from harness.cli import main
every = registry.kernels()
kernel = next(k for k in every if k.name == "hessian")
registry._kernels = {"hessian": replace(kernel, make=lambda g, **s: replace(kernel.make(g, **s), run=lambda *_: None))}
main(["kernels", "check", "--device", "cpu"])
"""


@needs_compiler
def test_a_kernel_that_writes_nothing_fails_with_a_line_for_each_shape():
    pytest.importorskip("triton", reason="needs Triton: pip install triton")
    done = fresh("-c", WRONG)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.startswith("FAIL  hessian: ") for line in lines] == [True] * 4 + [False]
    assert "nan for" in lines[0]
    assert lines[-1] == "0 of 4 checks of 1 kernels hold"


BARE = """
import sys
for missing in (
    "sqlalchemy", "pydantic", "pandas", "transformers", "scipy", "yaml", "lm_eval", "cupy", "pyarrow", "psutil",
    "tokenizers", "filelock", "jinja2", "matplotlib", "sklearn", "statsmodels", "huggingface_hub", "PIL",
):
    sys.modules[missing] = None
from harness.cli import main
main(["kernels", *sys.argv[1:]])
"""


def test_a_bare_machine_is_enough():
    done = fresh("-c", BARE, "list")
    assert done.returncode == 0, done.stderr
    assert "gemv 4 bits" in done.stdout


@needs_compiler
def test_cuda_sources_are_checked_there_without_triton_or_the_compiled_kernels():
    code = BARE.replace('"cupy"', '"cupy", "triton", "harness_kernels._native"')
    done = fresh("-c", code, "check", "--device", "cpu", "--only", "dfloat11")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 of 3 checks of 1 kernels hold\n"


@pytest.mark.parametrize("module", ["harness_kernels", "torch"])
def test_what_is_missing_is_named(module):
    code = BARE.replace('"cupy"', f'"cupy", {module!r}')
    done = fresh("-c", code, "list")
    assert done.returncode == 2
    assert done.stderr.startswith(f"harness: {module}: is not installed; ")
