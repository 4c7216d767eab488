"""Kernels of sparse, dense, codebook, table-lookup and lossless weights, and the choice between them and torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from packed_samples import (
    bit_planes,
    bitmap,
    codebook,
    compressed_rows,
    every_kind,
    generator,
    matrix,
    three_of_four,
    two_of_four,
)
from torch import Tensor

from harness.errors import BadInput
from harness.packed import (
    BitPlanes,
    CompressedLinear,
    Dense,
    DFloat11,
    LowRank,
    PackedWeight,
    SemiStructured,
    SparseTernary,
    Sum,
    Ternary,
    Uniform,
    load,
    save,
)
from harness.packed import kernels as choice
from harness.solution import Solution

NEEDED = "harness_kernels is not compiled here: pip install ./kernels"
kernels = pytest.importorskip("harness_kernels", reason=NEEDED)
if not kernels.available():
    pytest.skip(NEEDED, allow_module_level=True)
reference = pytest.importorskip("harness_kernels.reference")

SHAPES = [(1, 1), (3, 7), (33, 40), (5, 129), (64, 256), (70, 1030)]


@pytest.fixture(params=kernels.isas())
def isa(request):
    before = kernels.isa()
    kernels.set_isa(request.param)
    yield request.param
    kernels.set_isa(before)


def assert_exact_product(weight: PackedWeight, rows: int, seed: int = 0, room: float = 1e-6) -> None:
    """Within float32 rounding of the float64 product with the dequantized weight."""
    x = torch.randn(rows, weight.shape[1], generator=generator(seed))
    assert kernels.supports(weight)
    y = kernels.matmul(weight, x)
    dense = weight.dequantize().double()
    bound = x.double().abs() @ dense.abs().T
    assert y.shape == (rows, weight.shape[0])
    assert bool(((y.double() - x.double() @ dense.T).abs() <= room * bound + 1e-30).all())


def half(gen: torch.Generator, m: int, n: int, density: float) -> tuple[Tensor, Tensor]:
    return matrix(gen, m, n), torch.rand(m, n, generator=gen) < density


FLOATING: dict[str, Callable[[torch.Generator, int, int], PackedWeight]] = {
    "float32": lambda gen, m, n: Dense(matrix(gen, m, n)),
    "float16": lambda gen, m, n: Dense(matrix(gen, m, n).half()),
    "bfloat16": lambda gen, m, n: Dense(matrix(gen, m, n).bfloat16()),
    "dfloat11": lambda gen, m, n: DFloat11.pack(matrix(gen, m, n).bfloat16()),
    "two of four": lambda gen, m, n: SemiStructured.pack(matrix(gen, m, n), two_of_four(gen, m, n)),
    "bitmap": lambda gen, m, n: bitmap(*half(gen, m, n, 0.5)),
    "rows": lambda gen, m, n: compressed_rows(*half(gen, m, n, 0.05)),
    "no values": lambda gen, m, n: compressed_rows(*half(gen, m, n, 0)),
    "codebook of 4": lambda gen, m, n: codebook(gen, m, n, bits=4, norm=False),
    "codebook of 8": lambda gen, m, n: codebook(gen, m, n, bits=8, vector=8, norm=False),
    "codebook of 16": lambda gen, m, n: codebook(gen, m, n, bits=11, vector=16, norm=False),
    "ternary": lambda gen, m, n: Ternary.pack(
        torch.randint(-1, 2, (m, n), generator=gen), torch.ones(1, 1), layout="two_bits"
    ),
}


@pytest.mark.parametrize("name", FLOATING)
def test_floating_activations_equal_the_reference(isa, name):
    for m, n in SHAPES:
        weight = FLOATING[name](generator(m + n), m, n)
        for rows in (1, 6, 33):
            # The two-bit levels of AVX2 are 1 to 2 before their centre is taken off: errors are relative to that.
            assert_exact_product(weight, rows, rows, room=1e-5 if name == "ternary" else 1e-6)


def test_a_low_rank_product_and_a_sum_run_from_their_parts(isa, monkeypatch):
    low_rank = LowRank(matrix(generator(), 40, 3).half(), matrix(generator(), 3, 70).bfloat16())
    weight = Sum((low_rank, Dense(matrix(generator(1), 40, 70).half())))
    x = torch.randn(4, 70, generator=generator())
    exact = x.double() @ weight.dequantize().double().T
    monkeypatch.setattr(LowRank, "dequantize", lambda self: pytest.fail("the product was formed"))
    torch.testing.assert_close(kernels.matmul(weight, x).double(), exact, rtol=1e-5, atol=1e-5)


def test_a_codebook_takes_norms_and_a_permutation(isa):
    weight = codebook(generator(), 30, 50, bits=9, vector=8)
    x = torch.randn(3, 50, generator=generator())
    exact = x.double() @ weight.dequantize().double().T
    torch.testing.assert_close(kernels.matmul(weight, x).double(), exact, rtol=1e-5, atol=1e-4)


def nibbles(bits: Tensor) -> Tensor:
    """(..., n) of 0 and 1 to (..., ceil(n / 4)), the first column in the lowest bit."""
    padded = torch.nn.functional.pad(bits, (0, -bits.shape[-1] % 4)).unflatten(-1, (-1, 4)).long()
    return (padded << torch.arange(4)).sum(-1)


def of_fours(groups: Tensor, group_size: int, count: int) -> Tensor:
    """(..., G) of groups to (..., count) of four columns each."""
    return (
        groups.expand(*groups.shape[:-1], count)
        if group_size == -1
        else groups.repeat_interleave(group_size // 4, -1)[..., :count]
    )


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("planes", [1, 2, 3, 4])
def test_bit_planes_equal_rounded_tables(isa, planes, single):
    signs = 2.0 * (torch.arange(16)[:, None] >> torch.arange(4) & 1) - 1
    for (m, n), group_size, rows in zip(SHAPES[1:], (-1, 8, 64, 32, 96), (1, 3, 2, 1, 2), strict=True):
        weight = bit_planes(generator(m), m, n, planes=planes, group_size=group_size, single=single)
        count = -(-n // 4)
        scale = weight.scale.permute(2, 0, 3, 1).flatten(1, 2)[:, :m].float()
        if single:
            scale = scale * 2.0 ** torch.arange(planes)[:, None, None]
        offset = weight.offset.transpose(1, 2).flatten(0, 1)[:m].float()
        x = torch.randn(rows, n, generator=generator(rows)) * 3
        expected = reference.lookup_product(
            x,
            signs,
            nibbles(weight.planes().permute(2, 0, 1)),
            of_fours(scale, group_size, count),
            of_fours(offset, group_size, count),
            block=64 if group_size == -1 else {8: 8, 64: 64, 32: 32, 96: 32}[group_size],
            half=True,
        )
        y = kernels.matmul(weight, x, activations="int8")
        torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-4)


def test_sparse_ternary_equals_rounded_tables(isa):
    kept = torch.tensor([[1.0, 1 - 2.0 * (k >> 1 & 1), 1 - 2.0 * (k & 1)] for k in range(4)])
    patterns = torch.stack([torch.cat([kept[k][:z], torch.zeros(1), kept[k][z:]]) for z in range(4) for k in range(4)])
    for m, n, group_size, rows in ((1, 4, -1, 1), (33, 40, 8, 3), (5, 132, 64, 2), (70, 1032, 128, 1), (64, 6, -1, 2)):
        ternary = three_of_four(generator(m), m, n)
        groups = 1 if group_size == -1 else -(-n // group_size)
        scale = torch.rand(m, groups, generator=generator()) + 0.1
        weight = SparseTernary.pack(ternary, scale, group_size=group_size)
        assert torch.equal(weight.dequantize().sign(), ternary.float())
        # The nibble and sign of each four columns, looked up among all 32.
        every = torch.cat([patterns, -patterns])
        fours = torch.nn.functional.pad(ternary, (0, -n % 4)).unflatten(1, (-1, 4)).float()
        real = torch.nn.functional.pad(torch.ones(n), (0, -n % 4)).view(-1, 4)
        index = ((every * real[:, None]) == fours[..., None, :]).all(-1).int().argmax(-1)
        x = torch.randn(rows, n, generator=generator(rows))
        factors = of_fours(scale.half().float(), group_size, index.shape[-1])
        block = min(group_size, 64) if group_size != -1 else 64
        expected = reference.lookup_product(x, patterns, index[None], factors[None], None, block=block, half=False)
        y = kernels.matmul(weight, x, activations="int8")
        torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-4)


def test_rounded_tables_keep_the_error_small(isa):
    """The card of T-MAC: a normalized squared error below 1e-3 on normal data."""
    gen = generator()
    codes = torch.randint(0, 4, (256, 1024), generator=gen)
    scale, zero = torch.rand(256, 8, generator=gen) + 0.5, torch.full((256, 8), 1.5)
    weight = BitPlanes.from_codes(codes, scale, zero, bits=2, group_size=128)
    plain = Uniform.pack(codes, scale, zero, bits=2, group_size=128)
    assert torch.allclose(weight.dequantize(), plain.dequantize(), atol=2e-3)
    x = torch.randn(8, 1024, generator=gen)
    exact = x @ weight.dequantize().T
    error = kernels.matmul(weight, x, activations="int8") - exact
    assert 0 < float(error.square().sum() / exact.square().sum()) < 1e-3


@pytest.mark.parametrize("threads", [1, 2])
def test_dfloat11_decodes_bit_for_bit(isa, threads):
    every = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    normal = torch.randn(200, 300, generator=generator()).bfloat16()
    # Counts as Fibonacci numbers make the longest codes: beyond the table's twelve bits.
    counts = [1, 1]
    while len(counts) < 24:
        counts.append(counts[-1] + counts[-2])
    long = torch.cat([torch.full((c,), 2.0 ** (k - 40)) for k, c in enumerate(counts)]).bfloat16()
    kernels.set_threads(threads)
    try:
        for numbers in (every[None], normal, torch.ones(3, 5).bfloat16(), long[None]):
            weight = DFloat11.pack(numbers)
            assert torch.equal(weight.decode().view(torch.int16), numbers.view(torch.int16))
            parts = (weight.stream, weight.gaps, weight.positions, weight.lengths, weight.rest)
            assert torch.equal(kernels.dfloat11(*parts).view(torch.int16), numbers.flatten().view(torch.int16))
    finally:
        kernels.set_threads(1)
    assert int(DFloat11.pack(long[None]).lengths.max()) > 12


def test_damaged_dfloat11_is_refused_or_read_within_its_bounds():
    weight = DFloat11.pack(torch.randn(100, 400, generator=generator()).bfloat16())
    parts = {name: getattr(weight, name) for name in ("stream", "gaps", "positions", "lengths", "rest")}
    for change, message in [
        ({"lengths": torch.ones(256, dtype=torch.uint8)}, "lengths: are those of no prefix code"),
        ({"positions": parts["positions"] + 1}, "positions: do not rise from 0"),
        ({"gaps": parts["gaps"][:-1]}, "gaps: has shape"),
        ({"rest": parts["rest"].float()}, "rest: has dtype float32; accepted is uint8"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernels.dfloat11(**{**parts, **change})
    noise = torch.randint(0, 256, parts["stream"].shape, generator=generator(), dtype=torch.uint8)
    assert kernels.dfloat11(**{**parts, "stream": noise}).shape == parts["rest"].shape


def test_bad_arguments_are_named():
    x = torch.ones(2, 40)
    weight = compressed_rows(matrix(generator(), 3, 40), torch.ones(3, 40, dtype=torch.bool))
    beyond = torch.full_like(weight.columns.int(), 40)
    mask, values = bitmap(matrix(generator(), 3, 40), torch.ones(3, 40, dtype=torch.bool)).tensors().values()
    planes = bit_planes(generator(), 33, 40)
    for call, message in [
        (lambda: kernels.dense(x, torch.ones(3, 41)), r"weight: has shape \(3, 41\); accepted is \(-1, 40\)"),
        (lambda: kernels.dense(x, torch.ones(40, 3).T), "weight: is not contiguous"),
        (lambda: kernels.dense(x, torch.ones(3, 40).to("meta")), "on device meta; accepted is cpu"),
        (lambda: kernels.dense(x.long(), torch.ones(3, 40)), "x: has dtype torch.int64"),
        (lambda: kernels.sparse_rows(x, weight.rows.flip(0), weight.columns, weight.values), "rows: do not rise"),
        (lambda: kernels.sparse_rows(x, weight.rows, beyond, weight.values), "columns: holds numbers outside"),
        (lambda: kernels.bitmap(x, mask, values[:-1]), "values: has 119 elements; accepted are the 120"),
        (lambda: kernels.bitmap(x[:, :39], mask, values), "mask: has bits set beyond the last column"),
        (lambda: kernels.two_of_four(x, values.view(3, 40), mask), r"values: has shape \(3, 40\); accepted is"),
        (
            lambda: kernels.lookup(x, planes.codes, None, planes.scale[:1], planes.offset, rows=33, group_size=8),
            r"scale: has shape \(1, 5, 2, 32\); accepted is \(2, 5, -1, 32\)",
        ),
        (
            lambda: kernels.lookup(x, planes.codes, None, planes.scale, None, rows=33, group_size=12),
            "group_size: is 12; accepted are multiples of 8",
        ),
        (
            lambda: kernels.codebook(x, mask.new_zeros(1, 40), None, torch.ones(200, 8), bits=8, rows=3),
            r"book: has shape \(200, 8\); accepted is \(256, -1\)",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_empty_sizes(isa):
    assert kernels.dense(torch.ones(2, 0), torch.ones(3, 0)).tolist() == [[0.0] * 3] * 2
    assert kernels.dense(torch.ones(0, 4), torch.ones(3, 4)).shape == (0, 3)
    assert kernels.dense(torch.ones(2, 4), torch.ones(0, 4)).shape == (2, 0)


def test_a_layer_says_what_runs_it_and_can_be_pinned(tmp_path):
    weight = every_kind(0, 8, 64)["ternary"]
    x = torch.randn(3, 64, generator=generator())
    fastest, pinned = CompressedLinear(weight), CompressedLinear(weight, kernel="reference")
    assert fastest.runs_on == f"harness_kernels {kernels.isa()}, float activations"
    assert pinned.runs_on == choice.REFERENCE
    assert torch.equal(pinned(x), weight.matmul(x))
    torch.testing.assert_close(fastest(x), pinned(x))
    fastest.kernel = "int8"
    assert fastest.runs_on.endswith("int8 activations")
    assert torch.equal(fastest(x), kernels.matmul(weight, x, activations="int8"))
    assert torch.equal(pinned(x.double()), x.double() @ weight.dequantize().double().T)
    with pytest.raises(BadInput, match="kernel: is 'cuda'; accepted are fastest, int8, reference"):
        CompressedLinear(weight, kernel="cuda")


def test_the_environment_sets_the_default(monkeypatch):
    weight = every_kind(0, 8, 64)["dense"]
    monkeypatch.setenv("HARNESS_KERNELS", "reference")
    assert CompressedLinear(weight).runs_on == choice.REFERENCE
    assert choice.describe().endswith(", reference")
    monkeypatch.setenv("HARNESS_KERNELS", "quick")
    with pytest.raises(BadInput, match="HARNESS_KERNELS: is 'quick'; accepted are fastest, int8, reference"):
        CompressedLinear(weight)(torch.ones(1, 64))


def test_gradients_go_through_the_reference():
    weight = every_kind(0, 8, 64)["uniform"]
    x = torch.randn(2, 64, generator=generator(), requires_grad=True)
    CompressedLinear(weight)(x).sum().backward()
    torch.testing.assert_close(x.grad, weight.dequantize().sum(0).expand(2, -1))


@pytest.mark.parametrize("kind", sorted(every_kind(0, 2, 5)))
def test_what_was_saved_runs_as_before(kind, tmp_path):
    weight = every_kind(2, 40, 72)[kind]
    x = torch.randn(3, 72, generator=generator())
    save(tmp_path / "w.safetensors", Solution(packed={"layer": weight}))
    again = load(tmp_path / "w.safetensors").packed["layer"]
    for activations in ("float", "int8"):
        if kernels.supports(weight, activations):
            y = kernels.matmul(weight, x, activations=activations)
            assert torch.equal(kernels.matmul(again, x, activations=activations), y)


def test_without_the_compiled_part_the_reference_runs():
    code = """
import sys
sys.modules["harness_kernels._native"] = None
import harness_kernels, torch
from harness.packed import CompressedLinear, Dense, kernels
layer = CompressedLinear(Dense(torch.ones(3, 2).half()))
assert layer.runs_on == "torch reference" and layer(torch.ones(2)).tolist() == [2.0] * 3
print(kernels.describe())
try:
    harness_kernels.dense(torch.ones(1, 2), torch.ones(3, 2))
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "torch reference (harness_kernels is not installed: pip install ./kernels)",
        "the CPU kernels are not compiled here: pip install ./kernels, which needs a C++20 compiler",
    ]
