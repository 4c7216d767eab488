"""Low-rank factors, the empirical Fisher information, svd and fwsvd."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness import LayerProblem, LowRank
from harness.compress.fisher import empirical_fisher, split_samples
from harness.compress.svd import lowrank, rank_for_ratio
from methods.lowrank.svd import svd


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer_problem(weight: torch.Tensor, dtype: torch.dtype = torch.float32) -> LayerProblem:
    return LayerProblem("layer", weight, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.fixture
def weight() -> torch.Tensor:
    return normal(24, 40)


@pytest.fixture
def importance() -> torch.Tensor:
    return normal(40, seed=1).exp()


def weighted_error(error: torch.Tensor, importance: torch.Tensor) -> float:
    return float((error * importance.sqrt()).norm())


@pytest.mark.parametrize("rank", [1, 5, 23])
def test_each_factorization_wins_in_its_own_norm(weight, importance, rank):
    plain = weight - torch.matmul(*lowrank(weight, rank))
    fisher = weight - torch.matmul(*lowrank(weight, rank, in_weight=importance))
    assert plain.norm() < fisher.norm()
    assert weighted_error(fisher, importance) < weighted_error(plain, importance)


def test_truncation_error_is_the_tail_of_the_spectrum(weight):
    tail = torch.linalg.svdvals(weight.double())[5:].norm()
    error = weight - torch.matmul(*lowrank(weight, 5))
    assert float(error.norm()) == pytest.approx(float(tail), rel=1e-5)


def test_equal_importance_is_plain_svd(weight):
    plain = torch.matmul(*lowrank(weight, 6))
    for uniform in (torch.full((40,), 0.37), torch.zeros(40)):
        assert torch.allclose(torch.matmul(*lowrank(weight, 6, in_weight=uniform)), plain, atol=1e-5)


def test_a_constant_factor_of_the_importance_does_not_matter(weight, importance):
    once = torch.matmul(*lowrank(weight, 6, in_weight=importance))
    scaled = torch.matmul(*lowrank(weight, 6, in_weight=importance * 1e-12))
    assert torch.allclose(once, scaled, atol=1e-5)


def test_full_rank_is_lossless_even_with_dead_inputs(weight, importance):
    importance[:7] = 0
    for weights in ({}, {"in_weight": importance}, {"out_weight": importance[:24]}):
        assert torch.allclose(torch.matmul(*lowrank(weight, 24, **weights)), weight, atol=1e-4)


def test_output_importance_is_input_importance_of_the_transpose(weight, importance):
    a, b = lowrank(weight, 6, in_weight=importance)
    transposed = torch.matmul(*lowrank(weight.T.contiguous(), 6, out_weight=importance))
    assert torch.allclose(transposed, (a @ b).T, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "ratio", "rank"),
    [
        ((64, 64), 0.6, 19),
        ((24, 40), 0.5, 7),
        ((100, 100), 0.5, 25),
        ((64, 64), 1.0, None),
        ((24, 128), 1.0, None),
        ((1, 32), 0.6, None),
    ],
)
def test_rank_for_ratio(shape, ratio, rank):
    assert rank_for_ratio(shape, ratio) == rank
    if rank:
        assert rank * sum(shape) <= ratio * shape[0] * shape[1] < (rank + 1) * sum(shape)


def test_svd_stores_factors_of_that_size(weight):
    packed = svd(layer_problem(weight, torch.float16), ratio=0.5)
    assert isinstance(packed, LowRank)
    assert packed.rank == 7
    assert packed.bits == 16 * 7 * (24 + 40)
    assert packed.A.dtype == packed.B.dtype == torch.float16


@pytest.mark.parametrize("shape", [(24, 40), (1, 40)])
def test_svd_keeps_a_layer_that_it_cannot_shrink(shape):
    weight = normal(*shape)
    ratio = 1.0 if shape[0] > 1 else 0.6
    assert torch.equal(svd(layer_problem(weight), ratio=ratio).dequantize(), weight)


class Net(nn.Module):
    """Two layers, with dropout that evaluation mode must turn off."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 3)
        self.dropout = nn.Dropout(0.5)
        for seed, parameter in enumerate(self.parameters()):
            parameter.data = normal(*parameter.shape, seed=seed)

    def forward(self, x):
        return self.second(self.dropout(torch.tanh(self.first(x))))


def cross_entropy(model: nn.Module, batch: dict) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"])


@pytest.fixture
def batches() -> list[dict]:
    return [{"x": normal(size, 5, seed=size), "y": torch.arange(size) % 3} for size in (4, 3)]


NAMES = ["first.weight", "second.weight"]


def test_fisher_is_the_mean_of_each_samples_squared_gradient(batches):
    model = Net().eval()
    expected = {name: torch.zeros(()) for name in NAMES}
    for sample in split_samples(batches):
        gradients = torch.autograd.grad(cross_entropy(model, sample), [model.get_parameter(name) for name in NAMES])
        expected = {name: expected[name] + g**2 / 7 for name, g in zip(NAMES, gradients, strict=True)}
    for reduce in (lambda name, squares: squares, lambda name, squares: squares.sum(0)):
        found = empirical_fisher(model, cross_entropy, batches, NAMES, reduce=reduce)
        for name in NAMES:
            assert torch.allclose(found[name].float(), reduce(name, expected[name]), rtol=1e-5)


def test_fisher_leaves_the_model_as_it_was(batches):
    model = Net().train()
    model.first.bias.requires_grad_(False)
    model.second.weight.grad = normal(3, 7)
    empirical_fisher(model, cross_entropy, batches, NAMES)
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert model.first.weight.grad is None
    assert torch.equal(model.second.weight.grad, normal(3, 7))
    cross_entropy(model, batches[0]).backward()
    assert model.first.weight.grad is not None


def test_fisher_does_not_depend_on_the_order_of_samples(batches):
    once = empirical_fisher(Net(), cross_entropy, batches, NAMES)
    turned = empirical_fisher(Net(), cross_entropy, batches[::-1], NAMES)
    assert torch.allclose(once["first.weight"], turned["first.weight"], rtol=1e-6)


def test_fisher_without_samples_is_refused():
    with pytest.raises(ValueError, match="no calibration samples"):
        empirical_fisher(Net(), cross_entropy, [], NAMES)
