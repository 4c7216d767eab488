"""Uniform grids, and rounding to them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.compress import LayerProblem
from harness.errors import BadInput
from harness.packed import Dense, Uniform
from methods.quantization.grids import fit
from methods.quantization.rtn import rtn


def draw(m: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


def layer(weight: Tensor) -> LayerProblem:
    """Without inputs: asking for them is an error."""
    return LayerProblem("blocks.0.fc", weight, generator=torch.Generator(), dtype=torch.bfloat16)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(1, 8),
    symmetric=st.booleans(),
    m=st.integers(1, 6),
    groups=st.integers(1, 3),
    width=st.sampled_from([1, 2, 7, 32]),
    exponent=st.integers(-7, 4),
    seed=st.integers(0, 99),
)
def test_every_weight_goes_to_the_nearest_stored_value(bits, symmetric, m, groups, width, exponent, seed) -> None:
    weight = draw(m, groups * width, seed) * 10.0**exponent
    packed = rtn(layer(weight), bits=bits, group_size=width, symmetric=symmetric)
    assert isinstance(packed, Uniform)
    values = packed.dequantize()
    scale = packed.scale.float().repeat_interleave(width, 1)
    zero = packed.zero_points().repeat_interleave(width, 1)
    grid = scale[..., None] * (torch.arange(2**bits) - zero[..., None])
    assert (grid == 0).any(-1).all()
    nearest = (grid - weight[..., None]).abs().amin(-1)
    assert ((values - weight).abs() <= nearest * (1 + 1e-5) + 1e-12).all()
    # What half a step cannot reach is the end of the range: by rounding of the zero point, of the scale, or, in the
    # symmetric grid, by the value that it has only on the negative side.
    limit = scale * (1.01 if symmetric else 0.51) + 2**bits * scale * 2.0**-10
    assert ((values - weight).abs() <= limit).all()


def test_grid_by_hand() -> None:
    weight = torch.tensor([[-1.0, 0.2, 2.0], [1.0, 2.0, 3.0], [-3.0, -2.0, -1.0], [0.0, 0.0, 0.0]])
    grid = fit(weight, bits=2)
    assert grid.scale.flatten().tolist() == [1.0, 1.0, 1.0, 2.0**-24]
    assert (-grid.low).flatten().tolist() == [1.0, 0.0, 3.0, 0.0]
    packed = rtn(layer(weight), bits=2)
    assert packed.dequantize().tolist() == [[-1, 0, 2], [1, 2, 3], [-3, -2, -1], [0, 0, 0]]
    assert packed.integers().tolist() == [[0, 1, 3], [1, 2, 3], [0, 1, 2], [0, 0, 0]]
    symmetric = rtn(layer(torch.tensor([[-3.5, 0.4, 3.5]])), bits=3, symmetric=True)
    assert symmetric.dequantize().tolist() == [[-4, 0, 3]]  # halves go to even, then into -4 .. 3
    assert symmetric.zero is None


@settings(max_examples=20, deadline=None)
@given(bits=st.integers(1, 5), symmetric=st.booleans(), seed=st.integers(0, 99))
def test_clip_search_is_the_best_of_all_shrunken_ranges(bits: int, symmetric: bool, seed: int) -> None:
    weight = draw(3, 24, seed) ** 3

    def error(values: Tensor, row: int) -> float:
        return float((values[row] - weight[row]).abs().double().pow(2.4).sum())

    found = fit(weight, bits=bits, symmetric=symmetric, clip="mse").round(weight)
    plain = fit(weight, bits=bits, symmetric=symmetric).round(weight)
    for row in range(3):
        low, high = min(0.0, float(weight[row].min())), max(0.0, float(weight[row].max()))
        errors = []
        for i in range(80):
            p = 1 - i / 100
            ends = torch.tensor([[low * p, high * p] + [0.0] * 22])
            errors.append(
                error(fit(ends, bits=bits, symmetric=symmetric).round(weight[row : row + 1]).expand(3, -1), row)
            )
        assert math.isclose(error(found, row), min(errors), rel_tol=1e-5)
        assert error(found, row) <= error(plain, row) * (1 + 1e-6)


def test_clip_search_works_along_any_dimension_and_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = draw(20, 12)
    whole = fit(weight, bits=3, clip="mse")
    monkeypatch.setattr("methods.quantization.grids.CHUNK", 36)
    for one, other in zip(whole, fit(weight.T, bits=3, clip="mse", dim=0), strict=True):
        assert torch.equal(one, other.T)
    groups = fit(weight.view(20, 3, 4), bits=3, clip="mse")
    assert groups.scale.shape == (20, 3, 1)
    assert torch.equal(groups.scale[:, 1], fit(weight[:, 4:8], bits=3, clip="mse").scale)


def test_clip_helps_where_there_are_outliers() -> None:
    weight = draw(8, 256)
    weight[:, 0] = 20

    def error(clip: str) -> float:
        return float((rtn(layer(weight), bits=3, clip=clip).dequantize() - weight).abs().pow(2.4).sum())

    assert error("mse") < error("minmax")


def test_groups_are_independent() -> None:
    weight = draw(4, 24)
    whole = rtn(layer(weight), bits=3, group_size=8).dequantize()
    parts = [rtn(layer(weight[:, a : a + 8].contiguous()), bits=3).dequantize() for a in (0, 8, 16)]
    assert torch.equal(whole, torch.cat(parts, 1))
    assert torch.equal(rtn(layer(weight), bits=3, group_size=24).dequantize(), rtn(layer(weight), bits=3).dequantize())


def test_a_group_size_that_does_not_divide_is_refused_by_name() -> None:
    expected = r"layer blocks\.0\.fc: group_size=16 does not divide its 24 inputs; give a divisor, or -1"
    with pytest.raises(BadInput, match=expected):
        rtn(layer(draw(4, 24)), group_size=16)


def test_sixteen_bits_keep_the_weight_in_the_checkpoints_dtype() -> None:
    weight = draw(4, 24).bfloat16().float()
    packed = rtn(layer(weight), bits=16)
    assert isinstance(packed, Dense)
    assert packed.weight.dtype == torch.bfloat16
    assert torch.equal(packed.dequantize(), weight)


def test_stored_bits() -> None:
    assert rtn(layer(draw(8, 64)), bits=3, group_size=32).budget() == {"codes": 8 * 64 * 3, "scales": 256, "zeros": 48}
    assert rtn(layer(draw(8, 64)), bits=4, symmetric=True).budget() == {"codes": 8 * 64 * 4, "scales": 128}


def test_weights_beyond_half_precision_stay_finite() -> None:
    packed = rtn(layer(torch.tensor([[1e30, -1.0], [1e-30, 0.0], [6e4, 6e4]])), bits=4)
    assert packed.dequantize().isfinite().all()
