"""Every CPU kernel against its float64 reference, on every instruction set of this machine."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys

import pytest
import torch
from packed_samples import generator
from torch import Tensor

from harness.packed import Ternary, Uniform

NEEDED = "harness_kernels is not compiled here: pip install ./kernels"
kernels = pytest.importorskip("harness_kernels", reason=NEEDED)
if not kernels.available():
    pytest.skip(NEEDED, allow_module_level=True)
reference = pytest.importorskip("harness_kernels.reference")

BLOCK = {2: 256, 3: 64, 4: 128, 8: 64}


@pytest.fixture(params=kernels.isas())
def isa(request):
    before = kernels.isa()
    kernels.set_isa(request.param)
    yield request.param
    kernels.set_isa(before)


@pytest.fixture
def two_threads():
    kernels.set_threads(2)
    yield
    kernels.set_threads(1)


def stored(m: int, n: int, bits: int, group_size: int, zeros: str | None, seed: int = 0, one: bool = False):
    """(codes, scale, zero) as stored, with scales over three orders of magnitude."""
    gen = generator(seed)
    groups = 1 if group_size == -1 or n == 0 else -(-n // group_size)
    shape = (1, 1) if one else (m, groups)
    scale = torch.exp((3 * torch.randn(shape, generator=gen)).clamp(-8, 8))
    integers = torch.randint(0, 2**bits, shape, generator=gen)
    zero = {None: None, "int": integers, "real": integers + 0.25}[zeros]
    codes = torch.randint(0, 2**bits, (m, n), generator=gen)
    weight = Uniform.pack(codes, scale, zero, bits=bits, group_size=group_size)
    return weight.codes, weight.scale, weight.zero


def assert_product(y: Tensor, x: Tensor, weight: Tensor, size: Tensor | None = None) -> None:
    """Within float32 rounding of the exact product: relative to the sum of the magnitudes that were added."""
    exact = x.double() @ weight.T
    bound = x.double().abs() @ (weight.abs() if size is None else size).T
    assert y.shape == exact.shape
    assert bool(((y.double() - exact).abs() <= 1e-6 * bound + 1e-30).all())


def largest_terms(scale: Tensor, zero: Tensor | None, columns: int, bits: int, group_size: int) -> Tensor:
    """Magnitude of a code's and its zero point's share in a weight, (m, columns) or broadcastable."""
    spread = scale.double().abs() * 2.0 ** (bits + 1)
    return spread.expand(-1, columns) if spread.shape[1] == 1 else spread.repeat_interleave(group_size, 1)[:, :columns]


CASES = [
    (1, 1, 4, -1, None),
    (3, 7, 4, -1, "int"),
    (5, 128, 4, 32, "int"),
    (4, 256, 4, 128, "real"),
    (9, 389, 4, 64, "int"),
    (6, 1000, 4, 128, None),
    (2, 130, 4, 256, "int"),
    (7, 513, 2, 64, "int"),
    (5, 1024, 2, 128, "real"),
    (3, 300, 2, -1, None),
    (11, 95, 3, 8, "int"),
    (4, 640, 3, 128, "real"),
    (6, 65, 3, -1, "int"),
    (8, 200, 8, 40, "real"),
    (5, 257, 8, 64, "int"),
    (2, 33, 8, -1, None),
    # Eight groups and more, each one sum of integers: scales and zero points are read as they are stored.
    (6, 1024, 4, 128, "int"),
    (5, 1000, 4, 128, None),
    (7, 1024, 4, 128, "real"),
    (3, 2048, 2, 128, "int"),
    (4, 1024, 2, 128, None),
    (5, 512, 3, 64, "int"),
    (6, 512, 8, 64, "int"),
    (9, 490, 8, 64, "real"),
]


@pytest.mark.parametrize("activations", ["float", "int8"])
@pytest.mark.parametrize(("m", "n", "bits", "group_size", "zeros"), CASES)
def test_uniform_equals_the_reference(isa, m, n, bits, group_size, zeros, activations):
    if group_size != -1 and group_size < n and group_size % kernels.group_multiple(bits, activations):
        pytest.fail("the case has a group size without a kernel")
    codes, scale, zero = stored(m, n, bits, group_size, zeros)
    weight = reference.uniform_weight(codes, scale, zero, columns=n, bits=bits, group_size=group_size)
    terms = largest_terms(scale, zero, n, bits, group_size)
    for rows in (1, 2, 4, 7):
        x = torch.randn(rows, n, generator=generator(rows)) * 10
        y = kernels.uniform(x, codes, scale, zero, bits=bits, group_size=group_size, activations=activations)
        used = x if activations == "float" else reference.round_activations(x, BLOCK[bits])
        assert_product(y, used, weight, terms)


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_random_shapes(isa, activations):
    chance = random.Random(7)
    for seed in range(40):
        bits = chance.choice([2, 3, 4, 8])
        step = kernels.group_multiple(bits, activations)
        m, n, rows = chance.randint(1, 13), chance.randint(1, 900), chance.randint(1, 9)
        group_size = chance.choice([-1, step, 3 * step, 32, 64, 128, 256])
        if group_size % step and group_size != -1:
            continue
        zeros = chance.choice([None, "int", "real"])
        codes, scale, zero = stored(m, n, bits, group_size, zeros, seed)
        weight = reference.uniform_weight(codes, scale, zero, columns=n, bits=bits, group_size=group_size)
        x = torch.randn(rows, n, generator=generator(seed))
        y = kernels.uniform(x, codes, scale, zero, bits=bits, group_size=group_size, activations=activations)
        used = x if activations == "float" else reference.round_activations(x, BLOCK[bits])
        assert_product(y, used, weight, largest_terms(scale, zero, n, bits, group_size))


def test_the_reference_is_the_stored_format():
    for bits, zeros in itertools.product((2, 3, 4, 8), (None, "int", "real")):
        weight = Uniform.pack(
            torch.randint(0, 2**bits, (5, 77), generator=generator()),
            torch.rand(5, 10, generator=generator()),
            {None: None, "int": torch.ones(5, 10, dtype=torch.int), "real": torch.full((5, 10), 0.5)}[zeros],
            bits=bits,
            group_size=8,
        )
        ours = reference.uniform_weight(weight.codes, weight.scale, weight.zero, columns=77, bits=bits, group_size=8)
        assert torch.equal(ours.float(), weight.dequantize())


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_one_scale_serves_the_whole_matrix(isa, activations):
    for group_size in (-1, 64):
        codes, scale, zero = stored(5, 300, 2, group_size, "int", one=True)
        weight = reference.uniform_weight(codes, scale, zero, columns=300, bits=2, group_size=group_size)
        x = torch.randn(3, 300, generator=generator())
        y = kernels.uniform(x, codes, scale, zero, bits=2, group_size=group_size, activations=activations)
        used = x if activations == "float" else reference.round_activations(x, 256)
        assert_product(y, used, weight, largest_terms(scale, zero, 300, 2, group_size).expand(5, -1))


@pytest.mark.parametrize("activations", ["float", "int8"])
@pytest.mark.parametrize(("bits", "group_size"), [(4, 128), (4, 32), (2, 128), (3, 64), (8, -1)])
def test_a_row_does_not_depend_on_batch_or_threads(isa, bits, group_size, activations, two_threads):
    codes, scale, zero = stored(301, 1030, bits, group_size, "int")
    x = torch.randn(7, 1030, generator=generator())

    def product(rows: Tensor) -> Tensor:
        return kernels.uniform(rows, codes, scale, zero, bits=bits, group_size=group_size, activations=activations)

    together = product(x)
    kernels.set_threads(1)
    assert torch.equal(together, product(x))
    assert torch.equal(together, torch.cat([product(row) for row in x.split(1)]))


@pytest.mark.parametrize("bits", [2, 4])
def test_floating_activations_of_very_different_size(isa, bits):
    codes, scale, zero = stored(9, 1000, bits, 128, "real")
    x = torch.randn(2, 1000, generator=generator()) * 10.0 ** torch.randint(-4, 5, (2, 1000), generator=generator(1))
    weight = reference.uniform_weight(codes, scale, zero, columns=1000, bits=bits, group_size=128)
    y = kernels.uniform(x, codes, scale, zero, bits=bits, group_size=128)
    assert_product(y, x, weight, largest_terms(scale, zero, 1000, bits, 128))


@pytest.mark.parametrize("activations", ["float", "int8"])
@pytest.mark.parametrize("group_size", [-1, 320, 640])
def test_base3_equals_the_reference(isa, group_size, activations):
    for m, n, seed in ((1, 1, 0), (3, 4, 1), (5, 320, 2), (6, 963, 3), (9, 1280, 4)):
        gen = generator(seed)
        ternary = torch.randint(-1, 2, (m, n), generator=gen)
        groups = 1 if group_size == -1 else -(-n // group_size)
        scale = (torch.rand(m, groups, generator=gen) + 0.01).half()
        codes = Ternary.pack(ternary, scale, group_size=group_size).codes
        assert codes.shape == (m, -(-n // 5))
        assert torch.equal(reference.unpack_base3(codes, n), ternary)
        weight = reference.base3_weight(codes, scale, columns=n, group_size=group_size)
        for rows in (1, 6):
            x = torch.randn(rows, n, generator=gen)
            y = kernels.base3(x, codes, scale, group_size=group_size, activations=activations)
            used = x if activations == "float" else reference.round_activations(x, 320)
            assert_product(y, used, weight, largest_terms(scale, None, n, 1, group_size))


def test_every_base3_byte_decodes():
    digits = torch.tensor(list(itertools.product((-1, 0, 1), repeat=5)))
    packed = Ternary.pack(digits, torch.ones(1, 1)).codes
    assert len(packed.unique()) == 243
    assert torch.equal(reference.unpack_base3(packed, 5), digits)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_many_rows_are_those_of_the_decoded_weight(isa, bits):
    codes, scale, zero = stored(130, 300, bits, 64, "int")
    weight = reference.uniform_weight(codes, scale, zero, columns=300, bits=bits, group_size=64)
    decoded = torch.empty(130, 300)
    kernels.native().uniform_decode(decoded, 0, codes, scale, zero, str(bits), 64)
    assert torch.equal(decoded, weight.float())
    x = torch.randn(kernels.MOST_ROWS + 1, 300, generator=generator())
    assert_product(kernels.uniform(x, codes, scale, zero, bits=bits, group_size=64), x, weight)


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_empty_sizes(isa, activations):
    for m, n, rows in ((0, 16, 2), (3, 0, 2), (3, 16, 0)):
        codes, scale, zero = stored(m, n, 4, -1, None)
        x = torch.ones(rows, n)
        y = kernels.uniform(x, codes, scale, zero, bits=4, group_size=-1, activations=activations)
        assert y.shape == (rows, m)
        assert bool((y == 0).all())


def test_numbers_that_are_not_finite_reach_the_result(isa):
    codes, scale, zero = stored(3, 64, 4, -1, "real")
    for bad in (float("nan"), float("inf")):
        x = torch.ones(2, 64)
        x[1, 5] = bad
        for activations in ("float", "int8"):
            y = kernels.uniform(x, codes, scale, zero, bits=4, group_size=-1, activations=activations)
            assert bool(y[0].isfinite().all())
            assert not bool(y[1].isfinite().any())


def test_the_environment_names_the_instruction_set():
    code = """
import harness_kernels as k, torch
y = k.two_bit_ternary(torch.ones(1, 8), torch.full((1, 2), 0xAA, dtype=torch.uint8), torch.ones(1, 1).half())
print(k.isa(), y.item())
"""
    environment = {**os.environ, "HARNESS_KERNELS_ISA": "portable"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["portable", "8.0"]


def test_an_instruction_set_that_is_not_there_is_told():
    environment = {**os.environ, "HARNESS_KERNELS_ISA": "sse9"}
    code = "import harness_kernels as k; print(k.isa())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == kernels.isas()[0]
    assert "HARNESS_KERNELS_ISA is 'sse9'; this machine has" in done.stderr


def test_the_rate_of_multiplying_counts_its_products(isa):
    assert kernels.native().multiply(0) == 0
    assert kernels.native().multiply(3) == 3 * kernels.native().multiply(1) > 0


def test_dtype_and_leading_shape_are_those_of_x():
    codes, scale, zero = stored(3, 64, 4, 32, "int")
    x = torch.randn(2, 5, 64, generator=generator())
    y = kernels.uniform(x.bfloat16(), codes, scale, zero, bits=4, group_size=32)
    assert y.shape == (2, 5, 3)
    assert y.dtype == torch.bfloat16
    strided = x.transpose(0, 1)
    assert torch.equal(
        kernels.uniform(strided, codes, scale, zero, bits=4, group_size=32),
        kernels.uniform(strided.contiguous(), codes, scale, zero, bits=4, group_size=32),
    )


def test_bad_arguments_are_named():
    codes, scale, zero = stored(3, 64, 4, 32, "int")
    x = torch.randn(2, 64)
    good = {"x": x, "codes": codes, "scale": scale, "zero": zero, "bits": 4, "group_size": 32}
    for change, message in [
        ({"x": x.int()}, "x: has dtype torch.int32"),
        ({"x": x.to("meta")}, "x: is on device meta; accepted is cpu"),
        ({"x": x[:, :62]}, r"codes: has shape \(3, 32\); accepted is \(-1, 31\)"),
        ({"codes": codes.int()}, "codes: has dtype int32; accepted is uint8"),
        ({"codes": codes.T.contiguous().T}, "codes: is not contiguous"),
        ({"codes": codes.to("meta")}, "codes: is on device meta"),
        ({"scale": scale.float()}, "scale: has dtype float32; accepted is float16"),
        ({"scale": scale[:, :1].contiguous()}, r"scale: has shape \(3, 1\); accepted is \(3, 2\)"),
        ({"scale": None}, "scale: is a NoneType"),
        ({"zero": zero[:-1]}, r"zero: has shape \(2\); accepted is \(3\)"),
        ({"bits": 5}, "bits: is 5; accepted are 2, 3, 4 and 8"),
        ({"group_size": 0}, "group_size: is 0"),
        ({"activations": "int4"}, "activations: is 'int4'"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernels.uniform(**{**good, **change})
    with pytest.raises(ValueError, match="group_size: is 12; accepted are multiples of 8"):
        kernels.uniform(x, codes, stored(3, 64, 4, 12, None)[1], bits=4, group_size=12)
    with pytest.raises(ValueError, match="threads: is 0"):
        kernels.set_threads(0)
    with pytest.raises(ValueError, match="instruction set: is sse9; this machine has"):
        kernels.set_isa("sse9")
