"""GPTQ against its invariants and against the textbook loop in double precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.compress import LayerProblem
from harness.compress.samples import correlated
from harness.errors import BadInput
from harness.packed import Dense, Uniform
from methods.quantization.gptq import gptq
from methods.quantization.grids import fit
from methods.quantization.rtn import rtn


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(weight: Tensor | None = None, x: Tensor | None = None) -> LayerProblem:
    weight = draw(12, 96) if weight is None else weight
    x = (correlated(400, weight.shape[1]) if x is None else x).to(weight.dtype)
    return LayerProblem("blocks.0.fc", weight, generator=torch.Generator(), inputs=lambda: iter(x.split(100)))


def proxy_loss(problem: LayerProblem, values: Tensor, damping: float = 0.01) -> float:
    """tr((W - Q) H (W - Q)T) with the damped H, in double precision."""
    H = problem.hessian().double()
    H = H + damping * H.diagonal().mean() * torch.eye(len(H))
    change = values.double() - problem.weight.double()
    return float((change @ H * change).sum())


def textbook(problem: LayerProblem, *, bits: int, group_size: int, symmetric: bool, damping: float) -> Tensor:
    """Algorithm 1 in double precision: the inverse taken as it is, one column after the other."""
    W, H = problem.weight.double().clone(), problem.hessian().double()
    m, n = W.shape
    U = torch.linalg.cholesky((H + damping * H.diagonal().mean() * torch.eye(n)).inverse(), upper=True)
    width = n if group_size == -1 else group_size
    Q = torch.zeros_like(W)
    for j in range(n):
        if j % width == 0:
            group = W[:, j : j + width]
            low, high = group.amin(1).clamp(max=0), group.amax(1).clamp(min=0)
            span = 2 * torch.maximum(-low, high) if symmetric else high - low
            scale = (span / (2**bits - 1)).half().double()
            zero = torch.full((m,), 2.0 ** (bits - 1)) if symmetric else (-low / scale).round()
        code = ((W[:, j] / scale).round() + zero).clamp(0, 2**bits - 1)
        Q[:, j] = scale * (code - zero)
        W[:, j:] -= ((W[:, j] - Q[:, j]) / U[j, j])[:, None] * U[j, j:]
    return Q


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [-1, 32, 12])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_textbook_loop_in_double_precision_agrees(bits: int, group_size: int, symmetric: bool) -> None:
    settings: dict[str, Any] = {"bits": bits, "group_size": group_size, "symmetric": symmetric}
    problem = layer(draw(12, 96).double())
    expected = textbook(problem, **settings, damping=0.01)
    values = gptq(problem, **settings).dequantize().double()
    torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-9)
    # In single precision a weight close to a tie may take the other side, and the rest of its row then differs.
    single = gptq(layer(), **settings).dequantize().double()
    assert ((single - expected).abs().amax(1) < 1e-6 * expected.abs().max()).sum() >= 11


@pytest.mark.parametrize(
    "settings",
    [
        {"bits": 2},
        {"bits": 3, "group_size": 32},
        {"bits": 3, "group_size": 32, "act_order": True},
        {"bits": 3, "group_size": 32, "act_order": True, "static_groups": True},
        {"bits": 3, "act_order": True},
        {"bits": 2, "clip": "mse", "symmetric": True},
    ],
)
def test_loss_is_the_proxy_loss_of_the_stored_weight_and_less_than_that_of_rounding(settings: dict[str, Any]) -> None:
    problem = layer()
    packed = gptq(problem, **settings)
    loss = proxy_loss(problem, packed.dequantize())
    assert problem.log["proxy_loss"] == pytest.approx(loss, rel=1e-3)
    plain = {key: value for key, value in settings.items() if key not in ("act_order", "static_groups")}
    assert loss < 0.9 * proxy_loss(problem, rtn(problem, **plain).dequantize())


@pytest.mark.parametrize("group_size", [-1, 24])
@pytest.mark.parametrize("clip", ["minmax", "mse"])
@pytest.mark.parametrize("act_order", [False, True])
def test_uncorrelated_inputs_give_rounding_bit_for_bit(group_size: int, clip: str, act_order: bool) -> None:
    problem = layer(x=0.3 * torch.eye(96))
    settings: dict[str, Any] = {"bits": 3, "group_size": group_size, "clip": clip}
    values = gptq(problem, **settings, act_order=act_order).dequantize()
    assert torch.equal(values, rtn(problem, **settings).dequantize())


def test_stored_codes_are_the_grid_points_that_were_chosen() -> None:
    """Rounding the stored weight to its own grid changes nothing, also in the permuted format."""
    for settings in ({}, {"act_order": True}, {"act_order": True, "static_groups": True}):
        packed = gptq(layer(), bits=3, group_size=16, **settings)
        assert isinstance(packed, Uniform)
        assert (packed.permutation is not None) == (settings == {"act_order": True})
        assert int(packed.integers().max()) <= 7
        again = Uniform.from_tensors(packed.tensors(), packed.meta())
        assert torch.equal(again.dequantize(), packed.dequantize())


def test_static_groups_are_those_of_the_original_weight() -> None:
    problem = layer()
    packed = gptq(problem, bits=3, group_size=16, static_groups=True, act_order=True)
    grid = fit(problem.weight.view(12, 6, 16), bits=3)
    assert torch.equal(packed.scale.float(), grid.scale[..., 0])
    assert torch.equal(packed.zero_points(), -grid.low[..., 0])


def test_act_order_takes_columns_by_falling_energy() -> None:
    problem = layer()
    packed = gptq(problem, bits=3, group_size=16, act_order=True)
    energy = problem.hessian().diagonal()[packed.permutation.long()]
    assert (energy.diff() <= 0).all()


@pytest.mark.parametrize("block_size", [1, 8, 40, 1000])
def test_block_size_does_not_change_the_result(block_size: int) -> None:
    weight = draw(12, 96).double()

    def solve(block_size: int) -> Tensor:
        return gptq(layer(weight), bits=3, group_size=24, block_size=block_size).dequantize()

    assert torch.equal(solve(block_size), solve(128))


def test_permuting_rows_permutes_the_result() -> None:
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    weight = draw(12, 96).double()
    whole = gptq(layer(weight), bits=3, group_size=24).dequantize()
    assert torch.equal(gptq(layer(weight[order]), bits=3, group_size=24).dequantize(), whole[order])


def test_dead_inputs_cost_nothing_and_change_nothing_else() -> None:
    x = correlated(400, 96)
    x[:, 5] = 0
    problem = layer(x=x)
    values = gptq(problem, bits=3).dequantize()
    assert not values[:, 5].any()
    weight = problem.weight.clone()
    weight[:, 5] = 100  # never multiplies anything, so it must not widen the grid
    assert torch.equal(gptq(layer(weight, x), bits=3).dequantize(), values)
    alive = [j for j in range(96) if j != 5]
    without = gptq(layer(problem.weight[:, alive].contiguous(), x[:, alive].contiguous()), bits=3).dequantize()
    assert ((without - values[:, alive]).abs().amax(1) < 1e-5).sum() >= 10


def test_inputs_that_are_all_dead() -> None:
    assert not gptq(layer(x=torch.zeros(10, 96)), bits=3).dequantize().any()


def test_one_row_an_empty_row_and_one_column() -> None:
    weight = draw(3, 96)
    weight[1] = 0
    values = gptq(layer(weight), bits=3).dequantize()
    assert not values[1].any()
    assert values[0].any()
    assert torch.equal(gptq(layer(weight[:1].contiguous()), bits=3).dequantize(), values[:1])
    one = gptq(layer(draw(4, 1), draw(10, 1, seed=1)), bits=3)
    assert torch.equal(one.dequantize(), rtn(layer(draw(4, 1)), bits=3).dequantize())


def test_fewer_rows_than_columns() -> None:
    problem = layer(x=correlated(20, 96))
    assert gptq(problem, bits=3).dequantize().isfinite().all()


def test_damping_decides_how_far_errors_spread() -> None:
    problem = layer()
    assert proxy_loss(problem, gptq(problem, damping=1.0).dequantize()) > proxy_loss(
        problem, gptq(problem).dequantize()
    )


def test_factor_is_shared_by_layers_with_the_same_input() -> None:
    shared: dict[str, Any] = {}
    x = correlated(200, 96)
    calls = []

    def inputs():
        calls.append(1)
        return iter([x])

    for seed in range(3):
        problem = LayerProblem(
            "q", draw(8, 96, seed=seed), generator=torch.Generator(), inputs=inputs, statistics=shared
        )
        gptq(problem, bits=3)
    assert len(calls) == 1


def test_refusals() -> None:
    with pytest.raises(BadInput, match=r"layer blocks\.0\.fc: group_size=36 does not divide its 96 inputs"):
        gptq(layer(), group_size=36)
    with pytest.raises(BadInput, match=r"layer blocks\.0\.fc: no calibration rows"):
        gptq(layer(x=torch.zeros(0, 96)))


def test_sixteen_bits_read_no_calibration_data() -> None:
    problem = LayerProblem("fc", draw(3, 8).half().float(), generator=torch.Generator())
    packed = gptq(problem, bits=16)
    assert isinstance(packed, Dense)
    assert torch.equal(packed.dequantize(), problem.weight)
