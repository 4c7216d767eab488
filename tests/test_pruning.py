"""magnitude, wanda and random_mask."""

from __future__ import annotations

import itertools

import pytest
import torch

from harness import BadInput, LayerProblem, SemiStructured, Sparse
from harness.packed import SparseRows
from methods.pruning.magnitude import magnitude
from methods.pruning.masks import keep_highest
from methods.pruning.random_mask import random_mask
from methods.pruning.wanda import wanda

METHODS = [magnitude, wanda, random_mask]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def problem(weight: torch.Tensor, inputs: torch.Tensor | None = None, seed: int = 0) -> LayerProblem:
    x = normal(64, weight.shape[1], seed=9) if inputs is None else inputs
    generator = torch.Generator().manual_seed(seed)
    return LayerProblem("layer", weight, generator=generator, inputs=lambda: iter(x.split(20)), dtype=torch.float32)


@pytest.mark.parametrize("prune", METHODS)
@pytest.mark.parametrize("sparsity", [0.1, 0.29, 0.5, 0.7, 1.0])
def test_exactly_that_many_weights_are_kept(prune, sparsity):
    weight = normal(8, 100)
    packed = prune(problem(weight), sparsity=sparsity)
    assert isinstance(packed, Sparse | SparseRows)
    kept = packed.dequantize() != 0
    assert packed.values.numel() == int(kept.sum()) == round(800 * (1 - sparsity))
    assert torch.equal(packed.dequantize()[kept], weight[kept])


@pytest.mark.parametrize("prune", METHODS)
@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
def test_every_group_of_a_pattern_keeps_its_share(prune, pattern):
    weight = normal(6, 48)
    kept, of = map(int, pattern.split(":"))
    packed = prune(problem(weight), sparsity=0.5, pattern=pattern)
    assert isinstance(packed, SemiStructured if pattern == "2:4" else Sparse)
    stays = packed.dequantize() != 0
    assert (stays.view(-1, of).sum(1) == kept).all()
    assert torch.equal(packed.dequantize()[stays], weight[stays])


@pytest.mark.parametrize(("prune", "pattern"), itertools.product(METHODS, ["unstructured", "2:4"]))
def test_zero_sparsity_is_the_dense_layer(prune, pattern):
    weight = normal(6, 48)
    assert torch.equal(prune(problem(weight), sparsity=0.0, pattern=pattern).dequantize(), weight)


@pytest.mark.parametrize("prune", METHODS)
@pytest.mark.parametrize(("sparsity", "columns", "said"), [(0.7, 48, "0.7"), (0.5, 27, "27 inputs")])
def test_a_pattern_that_does_not_fit_is_refused(prune, sparsity, columns, said):
    with pytest.raises(BadInput, match=rf"layer .*{said}"):
        prune(problem(normal(6, columns)), sparsity=sparsity, pattern="2:4")


def test_magnitude_keeps_the_largest_of_the_layer():
    weight = normal(8, 100)
    kept = magnitude(problem(weight), sparsity=0.75).dequantize() != 0
    assert weight[kept].abs().min() > weight[~kept].abs().max()


def test_wanda_keeps_in_each_row_the_largest_products_with_the_input_norm():
    weight, x = normal(8, 100), normal(64, 100, seed=3) * normal(100, seed=4).exp()
    kept = wanda(problem(weight, x), sparsity=0.4).dequantize() != 0
    score = weight.abs() * x.double().square().sum(0).sqrt().float()
    assert (kept.sum(1) == 60).all()
    for row, stays in zip(score, kept, strict=True):
        assert row[stays].min() > row[~stays].max()


def test_wanda_with_equal_inputs_is_magnitude_within_each_row():
    weight = normal(8, 100)
    signs = normal(64, 100, seed=5).sign()
    expected = torch.stack([magnitude(problem(row[None]), sparsity=0.5).dequantize()[0] for row in weight])
    assert torch.equal(wanda(problem(weight, signs), sparsity=0.5).dequantize(), expected)


def test_wanda_drops_dead_inputs_first():
    x = normal(64, 10)
    x[:, [2, 7]] = 0
    kept = wanda(problem(normal(4, 10), x), sparsity=0.2).dequantize() != 0
    assert not kept[:, [2, 7]].any()


def test_the_mask_of_random_mask_comes_from_the_layers_generator():
    weight = normal(16, 64)
    masks = [random_mask(problem(weight, seed=seed)).dequantize() != 0 for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    agreement = (masks[0] == masks[2]).float().mean()
    assert 0.4 < agreement < 0.6


def test_of_equal_scores_the_earlier_goes():
    kept = keep_highest(torch.zeros(2, 6), 0.5)
    assert torch.equal(kept, torch.tensor([[False] * 3 + [True] * 3] * 2))
