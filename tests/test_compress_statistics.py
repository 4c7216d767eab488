"""What is accumulated over the calibration inputs, against the same numbers from all inputs at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.compress import LayerProblem, statistics
from harness.compress.statistics import activations, dead_columns, hessian, paired_hessian
from harness.errors import BadInput, TrialFailed


def draw(rows: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, n, generator=torch.Generator().manual_seed(seed))


def layer(batches: Sequence[Tensor], twins: Sequence[Tensor] = (), n: int | None = None) -> LayerProblem:
    width = n or batches[0].shape[1]
    return LayerProblem(
        "layer",
        torch.ones(2, width),
        generator=torch.Generator(),
        inputs=lambda: iter(batches),
        paired=lambda: zip(batches, twins, strict=True),
    )


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(0, 9), min_size=1, max_size=5), n=st.integers(1, 12), seed=st.integers(0, 99))
def test_hessian_is_the_mean_outer_product_whatever_the_batches(rows: list[int], n: int, seed: int) -> None:
    x = draw(sum(rows), n, seed)
    if not len(x):
        with pytest.raises(BadInput, match="layer layer: no calibration rows"):
            hessian(layer(x.split(rows)))
        return
    expected = 2 * x.double().T @ x.double() / len(x)
    torch.testing.assert_close(hessian(layer(x.split(rows))).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [511, 512, 513, 1300])
def test_strips_make_the_whole_symmetric_product(n: int) -> None:
    x = draw(40, n)
    H = hessian(layer(x.split(17)))
    assert torch.equal(H, H.T)
    torch.testing.assert_close(H, 2 * x.T @ x / 40, rtol=1e-4, atol=1e-5)


def test_paired_hessian() -> None:
    x, twin = draw(30, 7), draw(30, 7, seed=1)
    H, D = paired_hessian(layer(x.split(8), twin.split(8)))
    torch.testing.assert_close(H, hessian(layer(x.split(30))))
    torch.testing.assert_close(D, 2 * (twin - x).T @ x / 30)
    _, none = paired_hessian(layer(x.split(8), x.split(8)))
    assert not none.any()
    with pytest.raises(BadInput, match="no calibration rows"):
        paired_hessian(layer([], [], n=7))


def test_inputs_that_are_not_finite_fail_the_trial() -> None:
    x = draw(30, 7)
    x[3, 4] = float("nan")
    with pytest.raises(TrialFailed, match="layer layer: its calibration inputs hold a number that is not finite"):
        hessian(layer([x]))
    with pytest.raises(TrialFailed, match="not finite"):
        activations(layer([x]))


def test_dead_columns() -> None:
    x = draw(30, 7)
    x[:, 2] = 0
    assert dead_columns(hessian(layer([x]))).tolist() == [False, False, True, False, False, False, False]


def test_activations() -> None:
    x = draw(1000, 5)
    found = activations(layer(x.split(300)))
    torch.testing.assert_close(found.mean_abs, x.abs().mean(0))
    assert torch.equal(found.max_abs, x.abs().amax(0))
    torch.testing.assert_close(found.l2, x.norm(dim=0))
    assert found.rows == 1000


@pytest.mark.parametrize("rows", [3, 512, 5000])
def test_sampled_rows_are_spread_evenly_and_do_not_depend_on_the_batches(rows: int) -> None:
    x = torch.arange(rows, dtype=torch.float32)[:, None].repeat(1, 2)
    sample = activations(layer(x.split(700))).sample[:, 0]
    assert len(sample) == min(rows, statistics.SAMPLED_ROWS)
    assert torch.equal(sample, activations(layer(x.split(64))).sample[:, 0])
    gaps = torch.cat([sample[:1] + 1, sample.diff(), rows - sample[-1:]])
    assert gaps.min() >= 1
    assert gaps.max() <= 3 * rows / len(sample)


def test_no_rows_is_bad_input() -> None:
    with pytest.raises(BadInput, match="no calibration rows"):
        activations(layer([torch.zeros(0, 4)]))
