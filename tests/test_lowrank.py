"""Low-rank factors, the empirical Fisher information, svd and fwsvd."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from harness import BadInput, LayerProblem, LowRank, compress_layers
from harness.compress import samples
from harness.compress.fisher import empirical_fisher, split_samples
from harness.compress.svd import lowrank, rank_for_ratio
from methods.lowrank.fwsvd import fwsvd
from methods.lowrank.svd import svd


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return samples.normal(*shape, seed=seed)


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


def fisher_by_hand(problem, name: str) -> torch.Tensor:
    """Squared gradients of the weight of a layer, sample by sample."""
    weight = problem.model.get_submodule(name).weight.requires_grad_(True)
    total = torch.zeros_like(weight)
    count = 0
    for sample in split_samples(problem.calibration):
        total += torch.autograd.grad(problem.loss(problem.model, sample), weight)[0] ** 2
        count += 1
    return total / count


@pytest.mark.parametrize(("axis", "side", "dim"), [("in", "in_weight", 0), ("out", "out_weight", 1)])
def test_fwsvd_weighs_by_the_fisher_information_summed_over_the_other_axis(axis, side, dim):
    name = "model.layers.1.mlp.down_proj"
    packed = fwsvd(samples.llama_problem(), ratio=0.6, axis=axis).packed[name]
    reference = samples.llama_problem()
    weight = reference.model.get_submodule(name).weight.detach().clone()
    importance = fisher_by_hand(reference, name).sum(dim)
    a, b = lowrank(weight, 51, **{side: importance})
    assert packed.rank == 51 == int(0.6 * 128 * 256 / (128 + 256))
    assert packed.A.dtype == torch.float16
    assert torch.allclose(packed.dequantize(), a @ b, atol=2e-3 * float(weight.abs().max()))
    # The other axis gives something else altogether, far beyond what rounding the factors does.
    other = torch.matmul(*lowrank(weight, 51))
    assert (packed.dequantize() - other).norm() > 20 * (packed.dequantize() - a @ b).norm()


class Images(nn.Module):
    """A grouped convolution and a transposed weight, as GPT-2 has them."""

    def __init__(self) -> None:
        from transformers.pytorch_utils import Conv1D

        super().__init__()
        self.conv = nn.Conv2d(8, 16, 3, groups=2)
        self.head = Conv1D(12, 16)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


def image_problem():
    problem = samples.network_problem()
    problem.model = Images().requires_grad_(False)
    for seed, parameter in enumerate(problem.model.parameters()):
        parameter.copy_(normal(*parameter.shape, seed=seed))
    problem.calibration = [{"x": normal(6, 8, 7, 7, seed=5)}]
    return problem


def test_fwsvd_knows_convolution_groups_and_transposed_weights():
    packed = fwsvd(image_problem(), ratio=0.5).packed
    reference = image_problem()
    kernel = reference.model.conv.weight.detach().flatten(1)
    squares = fisher_by_hand(reference, "conv").flatten(1)
    expected = [
        torch.matmul(*lowrank(kernel[part], 3, in_weight=squares[part].sum(0))) for part in (slice(8), slice(8, 16))
    ]
    assert torch.allclose(packed["conv"].dequantize(), torch.cat(expected), atol=0.01)
    head = reference.model.head.weight.detach().T
    squares = fisher_by_hand(image_problem(), "head").T
    expected = torch.matmul(*lowrank(head, 3, in_weight=squares.sum(0)))
    assert torch.allclose(packed["head"].dequantize(), expected, atol=0.01)


def test_fwsvd_needs_a_loss():
    problem = samples.network_problem()
    problem.loss = None
    with pytest.raises(BadInput, match="fwsvd needs a loss"):
        fwsvd(problem)


@pytest.mark.parametrize("seed", range(3))
def test_fwsvd_keeps_the_task_better_than_svd(seed):
    """The paper's claim on a classifier of digits, at rank 8 of 64: the weights change more, the loss less."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)

    def trained() -> nn.Module:
        torch.manual_seed(seed)
        model = samples.Network(64, 64, 10)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[:1200]), y[:1200]).backward()
            optimizer.step()
        return model.requires_grad_(False)

    def compressed(method: str) -> tuple[float, float]:
        """(Error of the weight, loss on digits that training did not see.)"""
        problem = samples.network_problem(64, 64, 10)
        problem.model = trained()
        problem.layers = ["first"]
        problem.calibration = [{"x": x[:400], "y": y[:400]}]
        problem.loss = cross_entropy
        original = problem.model.first.weight.clone()
        if method == "fwsvd":
            fwsvd(problem, ratio=0.25)
        else:
            compress_layers(problem, partial(svd, ratio=0.25))
        loss = nn.functional.cross_entropy(problem.model(x[1200:]), y[1200:])
        return float((problem.model.first.weight - original).norm()), float(loss)

    with torch.random.fork_rng(devices=[]):
        (fisher_error, fisher_loss), (svd_error, svd_loss) = compressed("fwsvd"), compressed("svd")
    assert svd_error < fisher_error
    assert fisher_loss < svd_loss
