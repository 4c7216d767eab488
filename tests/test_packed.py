"""Stored formats: what is packed comes back, its size is the bytes of its tensors, and what does not fit is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_samples import bitmap, compressed_rows, every_kind, generator, matrix, quantized, two_of_four
from torch import Tensor

from harness import BadInput, Solution
from harness.packed import (
    Dense,
    LowRank,
    PackedWeight,
    Rows,
    SemiStructured,
    Sparse,
    SparseRows,
    Sum,
    Uniform,
    base,
    kinds,
    load,
    packed,
    part,
    save,
    stored_scale,
    unpack,
)

SHAPES = [(1, 1), (1, 21), (9, 1), (5, 8), (4, 13), (16, 32)]
KINDS = sorted(every_kind(0, 2, 5))


def nbytes(weight: PackedWeight) -> int:
    return sum(tensor.nbytes for tensor in weight.tensors().values())


def test_every_registered_kind_is_tested_here():
    assert {kind for kind in kinds() if base._kinds[kind].__module__.startswith("harness.packed.")} == set(KINDS)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind, shape):
    weight = every_kind(3, *shape)[kind]
    m, n = weight.shape
    dense = weight.dequantize()
    assert dense.dtype == torch.float32
    assert dense.shape == (m, n)

    again = unpack(weight.kind, weight.tensors(), json.loads(json.dumps(weight.meta())))
    assert torch.equal(again.dequantize(), dense)
    assert again.tensors().keys() == weight.tensors().keys()
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in weight.tensors().items())

    assert sum(weight.budget().values()) == weight.bits == 8 * nbytes(weight)
    assert weight.bits_per_weight == 8 * nbytes(weight) / (m * n)

    x = torch.randn(2, 3, n, generator=generator(), dtype=torch.float64)
    product = weight.matmul(x)
    assert product.dtype == x.dtype
    torch.testing.assert_close(product, x @ dense.double().T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_dequantized_is_a_copy(kind):
    weight = every_kind(0, 4, 8)[kind]
    before = weight.dequantize()
    weight.dequantize().zero_()
    assert torch.equal(weight.dequantize(), before)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_outputs_do_not_depend_on_how_the_factors_lay_in_memory(tmp_path, two_threads, dtype):
    """What a decomposition returns is often transposed, what a file gives back begins anywhere."""
    gen = generator()
    for m, n, rank in ((24, 128, 11), (128, 128, 38), (128, 256, 51), (640, 256, 100)):
        factors = matrix(gen, rank, m).to(dtype).T, matrix(gen, n, rank).to(dtype).T
        shifted = matrix(gen, 1, m * n + 1).to(dtype)[0, 1:].view(m, n)
        weights = {
            "lowrank": LowRank(*factors),
            "dense": Dense(matrix(gen, n, m).to(dtype).T),
            "part": Dense(shifted),
        }
        save(tmp_path / "transposed.safetensors", Solution(weights))
        for name, loaded in load(tmp_path / "transposed.safetensors").packed.items():
            assert all(tensor.is_contiguous() for tensor in weights[name].tensors().values())
            for rows in (1, 5, 64):
                x = matrix(gen, rows, n)
                assert torch.equal(weights[name].matmul(x), loaded.matmul(x))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    m=st.integers(1, 5),
    n=st.integers(1, 19),
    bits=st.integers(1, 8),
    group_size=st.sampled_from([-1, 1, 3, 4, 32]),
    zeros=st.sampled_from([None, "int", "real"]),
    permuted=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_uniform_is_its_formula(m, n, bits, group_size, zeros, permuted, seed):
    gen = generator(seed)
    order = torch.randperm(n, generator=gen)
    weight, (codes, scale, zero) = quantized(
        gen, m, n, bits=bits, group_size=group_size, zeros=zeros, order=order if permuted else None
    )
    dense = weight.dequantize()
    for i in range(m):
        for j in range(n):
            g = 0 if group_size == -1 else j // group_size
            offset = 2 ** (bits - 1) if zero is None else zero[i, g]
            column = order[j] if permuted else j
            assert dense[i, column] == scale[i, g] * (codes[i, j] - offset)
    assert torch.equal(weight.integers().long(), codes)


def test_uniform_size_is_what_the_format_says():
    weight, _ = quantized(generator(), 64, 256, bits=3, group_size=128, zeros="int", order=torch.randperm(256))
    assert weight.budget() == {"codes": 64 * 256 * 3, "scales": 64 * 2 * 16, "zeros": 64 * 2 * 3, "permutation": 4096}
    assert quantized(generator(), 64, 256, zeros="real", group_size=-1)[0].budget()["zeros"] == 64 * 16
    assert quantized(generator(), 2, 40000, order=torch.randperm(40000))[0].budget()["permutation"] == 32 * 40000


def test_one_scale_for_the_matrix():
    codes = torch.tensor([[0, 3], [1, 2]])
    weight = Uniform.pack(codes, torch.tensor([[0.5]]), bits=2, group_size=-1)
    assert weight.dequantize().tolist() == [[-1.0, 0.5], [-0.5, 0.0]]
    assert weight.budget()["scales"] == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": torch.full((2, 8), 4)}, "integers from 0 to 3"),
        ({"codes": torch.zeros(2, 8)}, "integers from 0 to 3"),
        ({"scale": torch.full((2, 2), 1e9)}, "scale holds numbers that are not finite"),
        ({"scale": torch.full((2, 2), float("nan"))}, "scale holds numbers that are not finite"),
        ({"scale": torch.ones(2, 3)}, r"scale \(2, 3\)"),
        ({"group_size": 0}, "group_size is 0"),
        ({"zero": torch.zeros(2, 1, dtype=torch.int)}, "of one shape"),
        ({"zero": torch.full((2, 2), 4)}, "integers from 0 to 3"),
        ({"permutation": torch.arange(7)}, "each of 8 columns once"),
        ({"permutation": torch.zeros(8, dtype=torch.int)}, "each of 8 columns once"),
    ],
)
def test_uniform_refuses_what_it_cannot_hold(change, message):
    fine = {"codes": torch.zeros(2, 8, dtype=torch.int), "scale": torch.ones(2, 2), "bits": 2, "group_size": 4}
    Uniform.pack(**fine)
    with pytest.raises(ValueError, match=message):
        Uniform.pack(**(fine | change))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.floats(0, 2.0**-13, width=32) | st.floats(2.0**-14, 2.0, width=32) | st.floats(0, 2.0**126, width=32))
def test_stored_scale(step):
    stored = stored_scale(torch.tensor([step])).item()
    assert stored == torch.tensor(stored).half().item() > 0
    if 2**-14 <= step <= 65504:
        assert abs(stored - step) <= step * 2**-11
    elif step < 2**-14:
        assert step <= stored <= step + 2**-24
    else:
        assert stored == 65504


def test_small_steps_are_rounded_up():
    steps = torch.linspace(0, 2**-13, 1001)
    stored = stored_scale(steps)
    assert (stored[steps < 2**-14] >= steps[steps < 2**-14]).all()
    assert stored[0] == 2**-24


@pytest.mark.parametrize("bad", [-1.0, float("nan")])
def test_stored_scale_refuses(bad):
    with pytest.raises(ValueError, match="negative or not a number"):
        stored_scale(torch.tensor([bad]))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(1, 70), st.sampled_from([0.0, 0.02, 0.06, 0.5, 1.0]), st.integers(0, 2**31))
def test_sparse_takes_the_smaller_format(m, n, density, seed):
    gen = generator(seed)
    weight, mask = matrix(gen, m, n), torch.rand(m, n, generator=gen) < density
    stored = Sparse.pack(weight, mask)
    assert torch.equal(stored.dequantize(), weight * mask)
    assert stored.multiply_adds == int(mask.sum())
    assert nbytes(stored) == min(nbytes(bitmap(weight, mask)), nbytes(compressed_rows(weight, mask)))


def test_sparse_keeps_what_the_mask_keeps():
    weight = torch.tensor([[0.0, 1.0, float("nan")]])
    assert Sparse.pack(weight, torch.tensor([[True, True, False]])).multiply_adds == 2
    assert Sparse.pack(weight[:, :2]).multiply_adds == 1
    with pytest.raises(ValueError, match="not finite"):
        Sparse.pack(weight)
    with pytest.raises(ValueError, match="one shape"):
        Sparse.pack(weight, torch.ones(3, 1))


def test_sparse_columns_beyond_sixteen_bits():
    weight = torch.zeros(2, 70000)
    weight[1, 69999] = 3.0
    stored = Sparse.pack(weight)
    assert isinstance(stored, SparseRows)
    assert torch.equal(stored.dequantize(), weight)
    weight = torch.zeros(1, 2**16)
    weight[0, -1] = 3.0
    stored = Sparse.pack(weight)
    assert stored.tensors()["columns"].dtype == torch.uint16
    assert torch.equal(stored.dequantize(), weight)


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_semi_structured(m, n):
    gen = generator(1)
    weight, mask = matrix(gen, m, n), two_of_four(gen, m, n)
    assert torch.equal(SemiStructured.pack(weight, mask).dequantize(), weight * mask)
    few = mask & (torch.rand(m, n, generator=gen) < 0.5)
    assert torch.equal(SemiStructured.pack(weight, few).dequantize(), weight * few)
    assert torch.equal(SemiStructured.pack(weight, mask, keep=4, group=8).dequantize(), weight * mask)


def test_semi_structured_size_and_limit():
    weight = torch.ones(4, 64)
    mask = torch.tensor([1, 0, 0, 1]).bool().repeat(4, 16)
    stored = SemiStructured.pack(weight, mask)
    assert stored.budget() == {"values": 4 * 32 * 16, "index": 4 * 32 * 2}
    assert stored.multiply_adds == 4 * 32
    with pytest.raises(ValueError, match="more than 2 of 4"):
        SemiStructured.pack(weight)
    with pytest.raises(ValueError, match="not finite"):
        SemiStructured.pack(weight.masked_fill(mask, 1e6), mask)
    SemiStructured.pack(weight.masked_fill(~mask, float("nan")), mask)


def test_low_rank_multiplies_by_its_factors():
    gen = generator()
    weight = LowRank(torch.randn(6, 2, generator=gen).half(), torch.randn(2, 8, generator=gen).half())
    assert (weight.rank, weight.shape, weight.multiply_adds) == (2, (6, 8), 28)
    x = torch.randn(3, 8, generator=gen)
    assert torch.equal(weight.matmul(x), (x @ weight.B.float().T) @ weight.A.float().T)


def test_sum_and_rows():
    one, two = Dense(torch.ones(2, 3)), LowRank(torch.full((2, 1), 2.0), torch.full((1, 3), 4.0))
    total, stacked = Sum([one, two]), Rows([one, two])
    assert torch.equal(total.dequantize(), torch.full((2, 3), 9.0))
    assert stacked.dequantize().tolist() == [[1.0] * 3] * 2 + [[8.0] * 3] * 2
    assert total.multiply_adds == stacked.multiply_adds == 6 + 5
    assert total.budget() == {"dense": 6 * 32, "lowrank": 5 * 32}
    assert sorted(stacked.tensors()) == ["0_weight", "1_A", "1_B"]


@pytest.mark.parametrize("parts", [[], [Dense(torch.ones(2, 3)), Dense(torch.ones(2, 4))]])
@pytest.mark.parametrize("kind", [Sum, Rows])
def test_parts_that_do_not_fit(kind, parts):
    with pytest.raises(ValueError, match="parts must be at least one and of one"):
        kind(parts)


def test_more_than_ten_parts_keep_their_order():
    whole = Rows([Dense(torch.full((1, 2), float(i))) for i in range(12)])
    again = unpack("rows", whole.tensors(), whole.meta())
    assert again.dequantize()[:, 0].tolist() == list(range(12))


def test_a_format_from_outside():
    @packed("columns_of_signs")
    @dataclass(frozen=True, eq=False, repr=False)
    class Signs(PackedWeight):
        rows: int
        signs: Tensor = part("codes")
        bias: Tensor | None = part("zeros", optional=True)

        @property
        def shape(self) -> tuple[int, int]:
            return self.rows, len(self.signs)

        def dequantize(self) -> Tensor:
            return self.signs.float().expand(self.shape)

    weight = Signs(3, torch.tensor([1, -1], dtype=torch.int8))
    again = unpack("columns_of_signs", weight.tensors(), weight.meta())
    assert again.dequantize().tolist() == [[1.0, -1.0]] * 3
    assert weight.meta() == {"rows": 3}
    assert weight.budget() == {"codes": 16}
    with pytest.raises(TypeError, match="registered twice"):
        packed("columns_of_signs")(Dense)


def test_unknown_kind_names_the_nearest():
    with pytest.raises(BadInput, match="unknown kind of packed weight 'unifrom'; did you mean uniform"):
        unpack("unifrom", {}, {})


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_and_meta_that_do_not_fit_each_other(kind):
    weight = every_kind(0, 4, 8)[kind]
    tensors, meta = weight.tensors(), weight.meta()
    with pytest.raises(BadInput, match="packed weight of kind"):
        unpack(kind, {}, meta)
    with pytest.raises(BadInput, match="packed weight of kind"):
        unpack(kind, {name: tensor[:-1].flatten() for name, tensor in tensors.items()}, meta)
    with pytest.raises(BadInput, match="packed weight of kind"):
        unpack(kind, tensors, {**meta, "colour": "red"})
