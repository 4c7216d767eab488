"""Groups whose levels are sums of fitted factors: bit planes (ELUTQ) and trit planes (PTQTP)."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from harness.compress import LayerProblem
from harness.compress.samples import correlated
from harness.errors import BadInput
from harness.packed import BitPlanes, Sum, Ternary
from methods.quantization.elutq import _fit, _least_squares, _patterns, elutq
from methods.quantization.gptq import gptq
from methods.quantization.levels import alternate, nearest
from methods.quantization.ptqtp import ptqtp
from methods.quantization.rtn import rtn


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(weight: Tensor | None = None, x: Tensor | None = None) -> LayerProblem:
    weight = draw(12, 96) if weight is None else weight
    x = correlated(400, weight.shape[1]) if x is None else x
    return LayerProblem("blocks.0.fc", weight, generator=torch.Generator(), inputs=lambda: iter(x.split(100)))


def error(values: Tensor, weight: Tensor) -> float:
    """Mean squared error beside the weight's mean square."""
    return float((values - weight).square().mean() / weight.square().mean())


def proxy_loss(problem: LayerProblem, values: Tensor) -> float:
    H = problem.hessian().double()
    H = H + 0.01 * H.diagonal().mean() * torch.eye(len(H))
    change = values.double() - problem.weight.double()
    return float((change @ H * change).sum())


# Alternating choices and least squares.


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_the_error_never_rises(bits: int) -> None:
    groups = draw(6, 4, 32)
    patterns = _patterns(bits, groups)
    errors = []
    for iterations in range(12):
        factors = _start(groups, patterns, iterations)
        values = (factors @ patterns.T).gather(-1, nearest(groups, factors @ patterns.T).long())
        errors.append((values - groups).square().sum(-1))
    for before, after in itertools.pairwise(errors):
        assert (after <= before * (1 + 1e-5) + 1e-6).all()
    assert (errors[-1].sum() < 0.95 * errors[0].sum()) or bits == 4


def _start(groups: Tensor, patterns: Tensor, iterations: int) -> Tensor:
    """Factors after so many iterations, not rounded; of none, those of the uniform grid."""
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    bits = patterns.shape[1] - 1
    start = torch.cat([(high - low) * 2.0 ** torch.arange(bits) / (2**bits - 1), low], -1)
    return alternate(groups, patterns, start, _least_squares, iterations=iterations) if iterations else start


def test_the_first_of_equal_levels_is_taken() -> None:
    assert nearest(torch.tensor([[0.5, 2.0]]), torch.tensor([[0.0, 1.0, 1.0, 3.0]])).tolist() == [[0, 1]]


# Bit planes.


def test_one_bit_is_two_means() -> None:
    """Two free levels, so each is the mean of the weights that take it."""
    weight = draw(5, 64)
    values = elutq(layer(weight), bits=1, group_size=64, compensate=False, iterations=50).dequantize()
    for row, value in zip(weight, values, strict=True):
        low, high = value.unique()
        near = (row - low).abs() <= (row - high).abs()
        assert float(low) == pytest.approx(float(row[near].mean()), abs=2e-3)
        assert float(high) == pytest.approx(float(row[~near].mean()), abs=2e-3)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_free_factors_are_no_worse_than_the_uniform_grid_they_start_from(bits: int) -> None:
    weight = draw(64, 512)
    ours = elutq(layer(weight), bits=bits, compensate=False)
    assert isinstance(ours, BitPlanes)
    assert ours.bits_per_weight == pytest.approx(bits + 16 * (bits + 1) / 128)
    measured = error(ours.dequantize(), weight)
    assert measured <= error(rtn(layer(weight), bits=bits, group_size=128).dequantize(), weight)
    # Gaussian weights in groups of 128, as measured when the method was specified.
    assert measured == pytest.approx({2: 0.110, 3: 0.033, 4: 0.0085}[bits], rel=0.06)


def test_levels_are_the_subset_sums_of_the_stored_factors() -> None:
    packed = elutq(layer(), bits=3, group_size=32)
    again = BitPlanes.from_tensors(packed.tensors(), packed.meta())
    assert torch.equal(again.dequantize(), packed.dequantize())
    values = packed.dequantize().view(12, 3, 32)
    for row in range(12):
        for group in range(3):
            assert len(values[row, group].unique()) <= 8


def test_compensation_lowers_the_loss_it_reports() -> None:
    problem = layer()
    packed = elutq(problem, bits=2, group_size=32)
    loss = proxy_loss(problem, packed.dequantize())
    assert problem.log["proxy_loss"] == pytest.approx(loss, rel=1e-3)
    assert loss < 0.9 * proxy_loss(problem, elutq(problem, bits=2, group_size=32, compensate=False).dequantize())
    again = elutq(problem, bits=2, group_size=32, reassign=True).dequantize()
    assert proxy_loss(problem, again) < loss, "a column takes the level that is nearest once it is compensated"


def test_without_correlation_compensation_changes_nothing() -> None:
    problem = layer(x=0.3 * torch.eye(96))
    for reassign in (False, True):
        values = elutq(problem, bits=2, group_size=24, reassign=reassign).dequantize()
        assert torch.equal(values, elutq(problem, bits=2, group_size=24, compensate=False).dequantize())


def test_the_factors_are_as_stored_when_weights_are_rounded() -> None:
    """Every weight of a group takes the nearest of its stored levels."""
    groups = draw(3, 2, 40)
    patterns = _patterns(2, groups)
    factors = _fit(groups, patterns, 10)
    assert torch.equal(factors, factors.half().float())
    packed = elutq(layer(groups.view(3, 80)), bits=2, group_size=40, compensate=False)
    levels = factors @ patterns.T
    distance = (packed.dequantize().view(3, 2, 40) - groups).abs()
    assert torch.allclose(distance, (groups[..., None] - levels[:, :, None]).abs().amin(-1), atol=1e-6)


def test_at_equal_bits_bit_planes_lose_less_than_uniform_codes() -> None:
    problem = layer(draw(32, 256, seed=3), correlated(600, 256))
    ours, theirs = elutq(problem, bits=2), gptq(problem, bits=2, group_size=32)
    assert ours.bits_per_weight < theirs.bits_per_weight
    assert proxy_loss(problem, ours.dequantize()) < proxy_loss(problem, theirs.dequantize())


def test_dead_inputs_change_nothing_else() -> None:
    x = correlated(400, 96)
    x[:, 5] = 0
    problem = layer(x=x)
    values = elutq(problem, bits=2, group_size=32).dequantize()
    weight = problem.weight.clone()
    weight[:, 5] = 100
    assert torch.equal(elutq(layer(weight, x), bits=2, group_size=32).dequantize(), values)


def test_constant_groups_and_whole_rows() -> None:
    flat = torch.full((3, 16), 0.25)
    assert torch.equal(elutq(layer(flat), bits=2, group_size=16, compensate=False).dequantize(), flat)
    assert elutq(layer(), bits=2, group_size=-1).dequantize().isfinite().all()


def test_group_sizes_that_cannot_be_stored_are_told() -> None:
    with pytest.raises(BadInput, match="group_size=12 is no multiple of 8"):
        elutq(layer(), bits=2, group_size=12)
    with pytest.raises(BadInput, match="group_size=64 does not divide its 96 inputs"):
        elutq(layer(), bits=2, group_size=64)


# Trit planes.


def test_trit_planes_reach_the_error_they_were_specified_with() -> None:
    """Gaussian weights in groups of 128."""
    weight = draw(64, 512)
    two, one = (ptqtp(layer(weight), planes=planes) for planes in (2, 1))
    tied = ptqtp(layer(weight), tied=True)
    assert error(two.dequantize(), weight) == pytest.approx(0.0290, rel=0.03)
    assert error(tied.dequantize(), weight) == pytest.approx(0.0286, rel=0.03)
    assert error(two.dequantize(), weight) < error(one.dequantize(), weight)
    assert isinstance(two, Sum)
    assert isinstance(one, Ternary)
    # 128 columns are 25.6 bytes of five trits each, a row of 512 is 103 bytes.
    assert two.bits_per_weight == pytest.approx(2 * (103 * 8 / 512 + 16 / 128))


def test_levels_are_nine_and_symmetric_about_zero() -> None:
    values = ptqtp(layer(draw(1, 4096)), group_size=-1).dequantize().unique()
    assert len(values) == 9
    assert torch.allclose(values, -values.flip(0))


def test_a_group_that_is_a_sum_of_planes_is_recovered() -> None:
    """From the start that the method takes, where the planes' factors are not far from its ratio of 0.4."""
    trits = torch.randint(-1, 2, (2, 4, 64), generator=torch.Generator().manual_seed(1)).float()
    weight = 0.5 * trits[0] + 0.25 * trits[1]
    assert torch.allclose(ptqtp(layer(weight), group_size=64).dequantize(), weight, atol=1e-6)


def test_the_sign_of_the_weight_is_the_sign_of_the_result() -> None:
    weight = draw(8, 128)
    assert torch.equal(ptqtp(layer(-weight)).dequantize(), -ptqtp(layer(weight)).dequantize())


def test_zero_weights_stay_zero() -> None:
    weight = draw(8, 128)
    weight[:, ::3] = 0
    weight[2] = 0
    values = ptqtp(layer(weight)).dequantize()
    assert not values[weight == 0].any()
    assert values[0].any()


def test_planes_that_start_the_same_are_told_apart() -> None:
    """A group of one magnitude makes both planes equal, which the ridge has to bear."""
    weight = torch.where(draw(4, 64) > 0, 0.5, -0.5)
    values = ptqtp(layer(weight), group_size=64).dequantize()
    assert torch.allclose(values, weight, atol=1e-3)


def test_tied_is_of_two_planes() -> None:
    with pytest.raises(BadInput, match="tied=True is of two planes, not 3"):
        ptqtp(layer(), planes=3, tied=True, group_size=32)
