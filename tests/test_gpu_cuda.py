"""The CUDA sources: compiled for GPUs that are not there, and run as C++ against float64 references."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from gpu_nvrtc import compile_ptx, library
from packed_samples import bit_planes, codebook, every_kind, generator, matrix, quantized

from harness.packed import CompressedLinear, DFloat11, LowRank, Rows, SemiStructured, Sum
from harness.packed import kernels as choice

pytest.importorskip("harness_kernels.gpu", reason="harness_kernels is not installed: pip install ./kernels")

from harness_kernels.gpu import (
    checks,
    dfloat11,
    emulate,
    hadamard,
    launch,
    lookup,
    registry,
    uniform,
    weights,
)
from harness_kernels.gpu import (
    codebook as of_codebook,
)

CUDA = [kernel for kernel in registry.kernels() if kernel.language == "CUDA"]
FAST = 3
"""Shapes of a kernel that the fast tier runs: every new set of definitions is compiled anew."""
DEFINITIONS = {
    "codebook.cu": [("VECTOR=8", "BATCH=1"), ("VECTOR=6", "BATCH=8"), ("VECTOR=16", "BATCH=4")],
    "sparse.cu": [("BATCH=1",), ("BATCH=8",)],
    "hadamard.cu": [("LOG=13",), ("LOG=4",), ("LOG=15",), ("LOG=9",)],
}
needs_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX") or "g++") is None, reason="needs a C++ compiler")
needs_nvrtc = pytest.mark.skipif(library() is None, reason="needs NVRTC: pip install nvidia-cuda-nvrtc-cu12")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def emulation():
    with emulate.emulation():
        yield


@needs_compiler
@pytest.mark.parametrize("kernel", CUDA, ids=lambda kernel: kernel.name)
def test_as_cpp_it_gives_what_float64_gives(kernel, emulation):
    verdicts = list(checks.check([kernel], "cpu", most=FAST))
    assert len(verdicts) == min(FAST, len(kernel.checks))
    assert [v for v in verdicts if not v.ok] == []


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 100])
@pytest.mark.parametrize("kernel", CUDA, ids=lambda kernel: kernel.name)
def test_every_shape_gives_what_float64_gives(kernel, seed, emulation):
    assert [v for v in checks.check([kernel], "cpu", seed=seed) if not v.ok] == []


@needs_gpu
@pytest.mark.parametrize("kernel", registry.kernels(), ids=lambda kernel: kernel.name)
def test_on_a_gpu_it_gives_what_float64_gives(kernel):
    assert [v for v in checks.check([kernel], "cuda") if not v.ok] == []


@needs_compiler
@pytest.mark.parametrize("kernel", CUDA, ids=lambda kernel: kernel.name)
def test_nothing_around_the_tensors_matters_or_changes(kernel, emulation):
    case = kernel.make(generator(1), **kernel.checks[1 if kernel.name != "dfloat11 decode" else 0])
    results = []
    for filling in (0x00, 0xFF):
        room: list[torch.Tensor] = []
        inputs = [_surrounded(value, filling, room) for value in case.inputs]
        out = _surrounded(torch.zeros_like(case.out), filling, room)
        case.run(*inputs, out)
        results.append(out.clone())
        for buffer in room:
            assert bool((buffer[-64:] == filling).all())
    assert torch.equal(results[0].view(torch.uint8), results[1].view(torch.uint8))


def _surrounded(value, filling: int, room: list[torch.Tensor]):
    """A tensor with 64 bytes of a filling behind it."""
    if isinstance(value, list | tuple):
        return type(value)(_surrounded(one, filling, room) for one in value)
    if not isinstance(value, torch.Tensor):
        return value
    buffer = torch.full((value.nbytes + 64,), filling, dtype=torch.uint8)
    room.append(buffer)
    inside = buffer[: value.nbytes].view(value.dtype).view(value.shape)
    return inside.copy_(value)


@needs_nvrtc
@pytest.mark.parametrize("file", launch.files())
def test_it_compiles_without_cuda_headers(file):
    _compiles(file, "sm_90", "BFLOAT=1", DEFINITIONS.get(file, [()])[0])


@needs_nvrtc
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("file", launch.files())
def test_it_compiles_for_every_architecture(file, architecture):
    for definitions in DEFINITIONS.get(file, [()]):
        for activations in ("BFLOAT=0", "BFLOAT=1"):
            _compiles(file, architecture, activations, definitions)


def _compiles(file: str, architecture: str, activations: str, definitions: tuple[str, ...]) -> None:
    ptx = compile_ptx(launch.source(file), architecture, (activations, *definitions))
    assert set(re.findall(r"\.entry (\w+)", ptx)) == set(launch.kernel_names(file))
    # An array that is indexed by what is known only at run time leaves the registers for memory.
    assert ".local" not in ptx
    assert ("mma.sync" in ptx, "cp.async" in ptx) == (file == "uniform.cu", file in COPYING)


COPYING = ("uniform.cu", "lookup.cu", "codebook.cu")


def test_every_source_is_checked():
    assert launch.files() == sorted(
        {"uniform.cu", "lookup.cu", "codebook.cu", "sparse.cu", "hadamard.cu", "dfloat11.cu"}
    )
    assert all(launch.kernel_names(file) for file in launch.files())
    assert all(kernel.checks for kernel in registry.kernels())
    assert launch.kernel_names("uniform.cu") == list(uniform.KERNELS.values())


@needs_compiler
@pytest.mark.parametrize(("m", "n"), [(37, 70), (1, 1), (64, 96)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_kernels_read_what_the_formats_store(m, n, dtype, emulation):
    kinds = every_kind(3, m, n)
    kinds["uniform"], _ = quantized(generator(2), m, n, bits=4, group_size=32, order=torch.randperm(n))
    kinds["sum"] = Sum(
        (kinds["uniform"], LowRank(matrix(generator(1), m, 3).half(), matrix(generator(2), 3, n).half()))
    )
    kinds["rows"] = Rows((kinds["uniform"], kinds["ternary"], kinds["sum"]))
    x = torch.randn(2, n, generator=generator(4)).to(dtype)
    ran = set()
    for kind, weight in kinds.items():
        if weights.name(weight, dtype) is None:
            continue
        ran.add(kind)
        exact = x.double() @ weight.dequantize().double().T
        size = x.double().abs() @ weight.dequantize().double().abs().T + 8
        y = weights.matmul(weight, x[None])
        assert y.shape == (1, 2, weight.shape[0])
        assert y.dtype == dtype
        assert bool(((y[0].double() - exact).abs() <= torch.finfo(dtype).eps * size).all()), kind
    assert ran == {"uniform", "ternary", "sparse_ternary", "bit_planes", "codebook", "semi_structured", "dfloat11"} | {
        "sum",
        "rows",
    }


@needs_compiler
def test_more_rows_than_a_kernel_takes_and_none(emulation):
    weight = bit_planes(generator(), 40, 24)
    x = torch.randn(20, 24, generator=generator()).half()
    exact = x.double() @ weight.dequantize().double().T
    assert bool(((weights.matmul(weight, x).double() - exact).abs() <= 0.05).all())
    assert weights.matmul(weight, x[:0]).shape == (0, 40)


@needs_compiler
def test_what_has_no_kernel_says_so():
    weight = bit_planes(generator(), 40, 24)
    assert weights.name(weight, torch.float16) is None  # on the CPU
    with emulate.emulation():
        assert weights.name(weight, torch.float16)
        assert weights.name(weight, torch.float32) is None
        assert weights.name(quantized(generator(), 8, 64, group_size=24)[0], torch.float16) is None
        assert weights.name(codebook(generator(), 10, 8, vector=5), torch.float16) is None
        kept = SemiStructured.pack(torch.eye(8), keep=1, group=8)
        assert weights.name(kept, torch.float16) is None
        dense = every_kind(0, 8, 8)["dense"]
        assert weights.name(dense, torch.float16) is None
        assert weights.name(Sum((dense, dense)), torch.float16) is None


@needs_compiler
def test_dfloat11_decodes_a_block_at_once(emulation):
    gen = generator(5)
    shapes = [(3, 7), (64, 65), (1, 1), (200, 33)]
    values = [torch.randn(shape, generator=gen).bfloat16() * 10.0**-i for i, shape in enumerate(shapes)]
    # Every pattern of 16 bits: all exponents, NaNs of every kind, both zeros.
    values.append(torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).view(256, 256))
    packed = [DFloat11.pack(value) for value in values]
    decoded = dfloat11.Decoder([dfloat11.stored(weight) for weight in packed]).decode()
    for value, result in zip(values, decoded, strict=True):
        assert torch.equal(value.flatten().view(torch.int16), result.view(torch.int16))


@needs_compiler
def test_dfloat11_reads_codes_of_32_bits(emulation):
    """Fibonacci counts give the longest codes."""
    counts = [1, 1]
    while len(counts) < 24:
        counts.append(counts[-1] + counts[-2])
    exponents = torch.repeat_interleave(torch.arange(100, 124), torch.tensor(counts))
    words = exponents[torch.randperm(len(exponents), generator=generator())] << 7 | 5
    value = words.to(torch.int16).view(torch.bfloat16)[None]
    weight = DFloat11.pack(value)
    assert int(weight.lengths.max()) >= 20
    (decoded,) = dfloat11.decoder(weight).decode()
    assert torch.equal(value.flatten().view(torch.int16), decoded.view(torch.int16))
    assert dfloat11.decoder(weight) is dfloat11.decoder(weight)


def test_hadamard_matrices_are_orthogonal():
    for size in (12, 20):
        h = hadamard.matrix(size)
        assert torch.equal(h @ h.T, size * torch.eye(size, dtype=torch.float64))
        assert set(h.unique().tolist()) == {-1.0, 1.0}
    from scipy.linalg import hadamard as of_scipy

    identity = torch.eye(32, dtype=torch.float64)
    assert torch.allclose(hadamard.reference(identity), torch.from_numpy(of_scipy(32) / 32**0.5).double())
    for n in (12 * 16, 20 * 16):
        rotated = hadamard.reference(torch.eye(n, dtype=torch.float64))
        assert torch.allclose(rotated @ rotated.T, torch.eye(n, dtype=torch.float64))
    assert [hadamard.split(n) for n in (64, 96 * 2, 320, 24, 3, 2**16)] == [(1, 6), (12, 4), (20, 4), None, None, None]


EMULATED = r"""
#include "device.cuh"
KERNEL(narrow)(const float* x, u16* half, u16* bfloat) {
    const int i = blockIdx.x * 32 + threadIdx.x;
    half[i] = float_to_half(x[i]);
    bfloat[i] = float_to_bfloat(x[i]);
}
KERNEL(widen)(const u16* x, float* half) {
    const int i = blockIdx.x * 32 + threadIdx.x;
    half[i] = half_to_float(x[i]);
}
KERNEL(overrun)(float* out) {
    DYNAMIC_SHARED(shared);
    reinterpret_cast<float*>(shared)[threadIdx.x + 1] = 1;
}
KERNEL(apart)(float* out) {
    if (threadIdx.x != 3) __syncthreads();
}
KERNEL(hasty)(const float* from, float* out) {
    DYNAMIC_SHARED(shared);
    copy_async(shared, from);
    commit_copies();
    out[0] = reinterpret_cast<float*>(shared)[0];
    wait_copies<0>();
    out[1] = reinterpret_cast<float*>(shared)[1];
}
"""


def emulated(kernel: str, grid: int, threads: int, arguments: list, shared: int = 0) -> None:
    text = EMULATED.replace('#include "device.cuh"', launch.source("device.cuh"))
    names = ("narrow", "widen", "overrun", "apart", "hasty")
    emulate.run(emulate.library(text, names, ()), kernel, (grid, 1), threads, arguments, shared)


@needs_compiler
def test_emulated_numbers_are_rounded_as_torch_rounds_them():
    every = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    wide = torch.empty(2**16)
    emulated("widen", 2**11, 32, [every, wide])
    assert torch.equal(wide.nan_to_num(7e9), every.float().nan_to_num(7e9))
    bits = torch.randint(-(2**31), 2**31, (2**16,), generator=generator(), dtype=torch.int64).to(torch.int32)
    ties = every.float().nan_to_num(0, 0, 0) * (1 + 2.0**-11)  # between two halves
    for numbers in (bits.view(torch.float32), ties, torch.randn(2**16, generator=generator()) * 1e-6):
        numbers = numbers.nan_to_num(0.0).contiguous()
        half, bfloat = torch.empty(2**16, dtype=torch.float16), torch.empty(2**16, dtype=torch.bfloat16)
        emulated("narrow", 2**11, 32, [numbers, half, bfloat])
        assert torch.equal(half.view(torch.int16), numbers.half().view(torch.int16))
        assert torch.equal(bfloat.view(torch.int16), numbers.bfloat16().view(torch.int16))


@needs_compiler
def test_emulation_shows_a_read_before_the_copy_has_arrived():
    out = torch.zeros(2)
    emulated("hasty", 1, 1, [torch.ones(4), out], shared=16)
    assert out[0].isnan()
    assert out[1] == 1


@needs_compiler
@pytest.mark.parametrize(("kernel", "words"), [("overrun", "behind its shared memory"), ("apart", "wait at a barrier")])
def test_emulation_stops_at_what_a_gpu_may_not_show(kernel, words):
    code = f"import torch, test_gpu_cuda as t; t.emulated({kernel!r}, 1, 32, [torch.zeros(4)], shared=128)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    assert words in done.stderr


BROKEN = [
    ("gemv 4 bits", "zeros, first_row);\n    __syncthreads();", "zeros, first_row);"),
    ("gemv 4 bits", "wait_copies<kStages - 1>();", "wait_copies<kStages>();"),
    ("gemv 4 bits", "sums.total[i];\n    __syncthreads();", "sums.total[i];"),
    ("gemv 4 bits", "p.n % 8 == 0", "true"),
    ("lookup 2 planes", "fill_tables<batch>(p, tables, chunk * kChunk, lane);\n", ""),
    ("lookup 2 planes", "wait_copies<kStages - 1>();", ""),
    ("gemv codebook", "wait_copies<0>();\n        __syncthreads();", "wait_copies<0>();"),
    ("hadamard", "__syncthreads();\n            for", "for"),
    ("dfloat11 decode", "of_warps[warp] = sum;\n    __syncthreads();", "of_warps[warp] = sum;"),
]
CHANGED = """
import sys
from harness_kernels.gpu import checks, emulate, launch, registry
name, right, wrong = sys.argv[1:]
read = launch.source
def changed(file):
    launch.source = read
    text = read(file).replace(right, wrong)
    launch.source = changed
    return text
launch.source = changed
(kernel,) = (kernel for kernel in registry.kernels() if kernel.name == name)
with emulate.emulation():
    print([verdict.wrong for verdict in checks.check([kernel], "cpu") if not verdict.ok] or "held")
"""


def with_change(name: str, right: str, wrong: str) -> str:
    """What the checks say of a kernel with a changed source, or that it crashed; in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)}
    command = [sys.executable, "-c", CHANGED, name, right, wrong]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode <= 0, done.stderr
    return "crashed" if done.returncode else done.stdout.strip()


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(("name", "right", "wrong"), BROKEN)
def test_a_broken_kernel_is_found_out(name, right, wrong):
    """Barriers, waits and guards that are taken out of a source show."""
    assert any(right in launch.source(file) for file in launch.files())
    found = with_change(name, right, wrong)
    assert found == "crashed" or "numbers are off" in found


@needs_compiler
@pytest.mark.slow
def test_a_kernel_that_is_not_broken_holds():
    assert with_change("hadamard", "Walsh", "walsh") == "held"


@needs_compiler
def test_bad_input_is_named(emulation):
    made = uniform.make_uniform(generator(), bits=4, m=8, n=64, group_size=32)
    x, codes, scale, zero, *_ = made.inputs
    settings = {"bits": 4, "group_size": 32}
    bad = {
        "scale: has shape .*; accepted is": {"scale": scale[:, :1].contiguous()},
        "codes: has strides": {"codes": codes.T.contiguous().T},
        "codes: has dtype": {"codes": codes.to(torch.int8)},
        "x: has dtype": {"x": x.float()},
        "x: has shape": {"x": x.expand(9, -1).contiguous()},
        "zero: has shape": {"zero": zero[:-1].clone()},
        "codes: begins at": {"codes": torch.zeros(codes.numel() + 1, dtype=torch.uint8)[1:].view(codes.shape)},
        "group_size: is 24": {"group_size": 24},
        "bits: is 5": {"bits": 5},
        "x: is a list": {"x": [1.0]},
    }
    for words, changed in bad.items():
        given = {"x": x, "codes": codes, "scale": scale, "zero": zero, **settings, **changed}
        with pytest.raises(ValueError, match=f"^{words}"):
            uniform.uniform(**given)
    with pytest.raises(ValueError, match="layout: is"):
        uniform.ternary(x, codes, scale, layout="base4")
    with pytest.raises(ValueError, match="book: has shape"):
        of_codebook.codebook(x, codes, None, torch.zeros(3, 8).half(), m=8)
    with pytest.raises(ValueError, match="x: has shape"):
        hadamard.hadamard(torch.zeros(2, 24).half())
    with pytest.raises(ValueError, match="group_size: is 12"):
        lookup.lookup(x, codes, None, scale, None, m=8, group_size=12)
    with pytest.raises(ValueError, match="are none"):
        dfloat11.Decoder([])


def test_what_is_missing_is_named(monkeypatch):
    x = torch.zeros(1, 64).half()
    with pytest.raises(ValueError, match="x: is on device cpu; accepted is cuda"):
        hadamard.hadamard(x)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match=r"^no CUDA device; "):
            launch.need_cupy()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"cupy is not installed.*\[gpu\]"):
        launch.need_cupy()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="no C"), emulate.emulation():
        pass


@needs_compiler
def test_a_wrong_number_fails_the_check(emulation):
    kernel = CUDA[0]
    broken = replace(kernel, make=lambda gen, **shape: _off_by_one(kernel.make(gen, **shape)))
    (verdict,) = checks.check([broken], "cpu", most=1)
    assert "1 of" in verdict.wrong
    unwritten = replace(kernel, make=lambda gen, **shape: replace(kernel.make(gen, **shape), run=lambda *_: None))
    (verdict,) = checks.check([unwritten], "cpu", most=1)
    assert "nan for" in verdict.wrong
    (verdict,) = checks.check([replace(kernel, make=lambda gen, **shape: 1 / 0)], "cpu", most=1)
    assert verdict.wrong.startswith("ZeroDivisionError")


def _off_by_one(case):
    def run(*arguments):
        case.run(*arguments)
        out = arguments[-1].view(-1)
        out[-1] = torch.nextafter(torch.nextafter(out[-1], out.new_tensor(1e4)), out.new_tensor(1e4))

    return replace(case, run=run)


@needs_compiler
def test_a_layer_on_a_gpu_runs_them(emulation, monkeypatch):
    monkeypatch.setattr(choice, "_on_gpu", lambda tensor: True)
    monkeypatch.delenv("HARNESS_KERNELS", raising=False)
    weight, _ = quantized(generator(), 20, 64, bits=4, group_size=32)
    layer = CompressedLinear(weight)
    x = torch.randn(3, 64, generator=generator()).half()
    assert layer.runs_on == "harness_kernels CUDA"
    exact = x.double() @ weight.dequantize().double().T
    assert bool(((layer(x).double() - exact).abs() <= 2.0**-10 * exact.abs() + 1e-4).all())
    called = []
    monkeypatch.setattr(weights, "matmul", lambda *given: called.append(given))
    layer(x.float())  # float32 activations, and those that need gradients, are the reference's
    layer(x.clone().requires_grad_())
    pinned = CompressedLinear(weight, kernel="reference")
    pinned(x)
    assert pinned.runs_on == choice.REFERENCE
    assert called == []
    assert CompressedLinear(quantized(generator(), 8, 64, group_size=24)[0]).runs_on == choice.REFERENCE


@pytest.mark.parametrize("layout", list(uniform.TILES))
@pytest.mark.parametrize("groups", [1, 64, weights.MOST_GROUPS])
def test_a_block_fits_on_every_gpu(layout, groups):
    for batch in range(1, uniform.MOST_ROWS + 1):
        warps, shared = uniform.block(layout, batch, 1 << 16, groups)
        assert 1 <= warps <= uniform.WARPS
        assert shared <= 99 << 10
        # The warps' sums take the place of the tiles.
        assert shared >= warps * 16 * 8 * 4
    with pytest.raises(ValueError, match="scale: has 2000 groups"):
        uniform.block(layout, 8, 1 << 16, 2000)
