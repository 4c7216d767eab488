"""The Triton kernels: in Triton's interpreter against float64 references, and compiled for GPUs that are not there."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton: pip install triton")
pytest.importorskip("harness_kernels.gpu", reason="harness_kernels is not installed: pip install ./kernels")

from harness_kernels.gpu import gemm, hessian, launch, registry

TRITON = [kernel.name for kernel in registry.kernels() if kernel.language == "Triton"]

INTERPRETED = """
import json, sys
from harness_kernels.gpu import checks, registry
seed = int(sys.argv[1])
chosen = [kernel for kernel in registry.kernels() if kernel.language == "Triton"]
for verdict in checks.check(chosen, "cpu", seed=seed):
    print(json.dumps([verdict.kernel, verdict.shape, verdict.wrong]))
"""


@functools.cache
def interpreted(seed: int) -> dict[str, list[tuple[str, str]]]:
    """(shape, what is wrong) by kernel. In a process of its own: Triton chooses its interpreter when it is imported."""
    names = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    command = [sys.executable, "-c", INTERPRETED, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=names)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[tuple[str, str]]] = {}
    for kernel, shape, wrong in map(json.loads, done.stdout.splitlines()):
        found.setdefault(kernel, []).append((shape, wrong))
    return found


@pytest.mark.parametrize("name", TRITON)
def test_interpreted_it_gives_what_float64_gives(name):
    verdicts = interpreted(0)[name]
    (kernel,) = (kernel for kernel in registry.kernels() if kernel.name == name)
    assert len(verdicts) == len(kernel.checks)
    assert [verdict for verdict in verdicts if verdict[1]] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", TRITON)
@pytest.mark.parametrize("seed", [10, 20, 30])
def test_other_numbers_give_it_too(name, seed):
    assert [verdict for verdict in interpreted(seed)[name] if verdict[1]] == []


SLOW = [(architecture, bits) for architecture in (80, 90) for bits in (0, 2, 3, 8)] + [(80, 4)]


@pytest.mark.parametrize(("architecture", "bits"), [(90, 4), *(pytest.param(*s, marks=pytest.mark.slow) for s in SLOW)])
def test_the_product_compiles(architecture, bits):
    from harness_kernels.gpu import triton_gemm

    tensors = {"x": "*bf16", "codes": "*u8", "scale": "*fp16", "zero": "*u8", "factor": "*fp16", "thin": "*bf16"}
    numbers = ("rows", "m", "n", "row_bytes", "group_size", "groups", "rank")
    constants: dict[str, Any] = {"bits": bits, "zero_bits": bits, "constant": 8.0, "one_scale": False}
    constants |= {"low_rank": True, "block_rows": 16, "block_m": 64, "block_n": 64, "block_rank": 32}
    compiled = compile_for(architecture, triton_gemm.gemm, {**tensors, "y": "*bf16"}, numbers, constants)
    assert "mma" in compiled.asm["ptx"]
    assert compiled.metadata.shared <= 99 << 10


@pytest.mark.slow
def test_second_moments_compile_to_tensor_cores():
    from harness_kernels.gpu import triton_hessian

    constants = {"block": hessian.BLOCK, "block_rows": hessian.BLOCK_ROWS}
    tensors = {"h": "*fp32", "x": "*bf16"}
    compiled = compile_for(90, triton_hessian.accumulate, tensors, ("rows", "n"), constants, ("keep", "factor"))
    assert "wgmma" in compiled.asm["ptx"]
    assert compiled.metadata.shared <= 227 << 10


def compile_for(architecture: int, kernel: Any, tensors, numbers, constants, floats=()) -> Any:
    """As Triton compiles it where there is a GPU, down to the machine code of another one."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {**constants, "interpreted": False}
    types = dict.fromkeys(numbers, "i32") | dict.fromkeys(floats, "fp32") | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature={**tensors, **types}, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": 4})


def test_bad_input_is_named(monkeypatch):
    monkeypatch.setattr(launch, "interpreted", lambda: True)
    x, codes, scale = torch.zeros(20, 64).half(), torch.zeros(8, 32, dtype=torch.uint8), torch.ones(8, 2).half()
    with pytest.raises(ValueError, match="layout: is '5'"):
        gemm.gemm(x, codes, scale, layout="5", group_size=32)
    with pytest.raises(ValueError, match=r"group_size: is 16; accepted are multiples of 32"):
        gemm.gemm(x, codes, scale, layout="4", group_size=16)
    with pytest.raises(ValueError, match="scale: has shape"):
        gemm.gemm(x, codes, scale, layout="4", group_size=-1)
    with pytest.raises(ValueError, match="x: has dtype"):
        gemm.gemm(x.double(), codes, scale, layout="4", group_size=32)
    with pytest.raises(ValueError, match="hessian: has dtype"):
        hessian.accumulate(torch.zeros(64, 64).double(), x)
    with pytest.raises(ValueError, match="x: has strides"):
        hessian.accumulate(torch.zeros(20, 20), x.T)
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "harness_kernels.gpu.triton_hessian", raising=False)
    with pytest.raises(RuntimeError, match=r"triton is not installed.*\[gpu\]"):
        hessian.accumulate(torch.zeros(64, 64), x)


def test_on_the_cpu_it_says_what_it_needs():
    with pytest.raises(ValueError, match="x: is on device cpu; accepted is cuda"):
        hessian.accumulate(torch.zeros(4, 4), torch.zeros(3, 4).half())
