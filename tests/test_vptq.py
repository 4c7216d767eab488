"""VPTQ and its k-means against their invariants."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import registry
from harness.compress import LayerProblem, inverse_factor
from harness.compress.columns import Rounding
from harness.compress.samples import correlated
from harness.errors import BadInput
from harness.packed import Sum
from methods.quantization import vptq as module
from methods.quantization.gptq import gptq
from methods.quantization.kmeans import nearest, weighted_kmeans
from methods.quantization.vptq import Columns, cut, round_columns, vptq

SMALL: dict[str, Any] = {"vector": 4, "centroids": 16, "iterations": 15}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(weight: Tensor | None = None, x: Tensor | None = None, seed: int = 0) -> LayerProblem:
    weight = draw(32, 96) if weight is None else weight
    x = (correlated(400, weight.shape[1]) if x is None else x).to(weight.dtype)
    generator = torch.Generator().manual_seed(seed)
    return LayerProblem("blocks.0.fc", weight, generator=generator, inputs=lambda: iter(x.split(100)))


def proxy_loss(problem: LayerProblem, values: Tensor) -> float:
    """tr((W - Q) H (W - Q)T) with the damped H, in double precision."""
    H = problem.hessian().double()
    H = H + 0.01 * H.diagonal().mean() * torch.eye(len(H))
    change = values.double() - problem.weight.double()
    return float((change @ H * change).sum())


def solve(problem: LayerProblem, **settings: Any) -> Tensor:
    return vptq(problem, **settings).dequantize()


# The column loop.


def test_scalars_on_a_uniform_book_are_gptq() -> None:
    """Every row has the same range, so that all have the grid -1.5, -1.0 ... 2.0."""
    weight = draw(12, 96).clamp(-1.4, 1.9)
    weight[:, 3], weight[:, 8] = -1.5, 2.0
    problem = layer(weight)
    U = inverse_factor(problem.hessian().clone())
    book = torch.arange(-1.5, 2.5, 0.5)[:, None]
    solved, codes = round_columns(weight, U, torch.arange(96), Columns.of(weight, "off"), [book], 128)
    assert torch.equal(solved.quantized, gptq(problem, bits=3).dequantize())
    assert torch.equal(book[codes[0].long(), 0].T, solved.quantized)


@pytest.mark.parametrize("norm", ["minmax", "std", "off"])
@pytest.mark.parametrize("residual", [0, 8])
@pytest.mark.parametrize("others", [{}, {"act_order": False}, {"compensate": False}, {"block_size": 16}])
def test_the_loss_reported_is_that_of_the_stored_weight(norm: str, residual: int, others: dict) -> None:
    problem = layer()
    values = solve(problem, **SMALL, residual_centroids=residual, norm=norm, **others)
    assert problem.log["proxy_loss"] == pytest.approx(proxy_loss(problem, values), rel=1e-3)


@pytest.mark.parametrize("norm", ["minmax", "std", "off"])
@pytest.mark.parametrize("residual", [0, 8])
def test_the_loop_sees_the_weight_as_stored(norm: str, residual: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Rounding] = []
    original = module.solve_columns

    def spy(*args: Any, **settings: Any) -> Rounding:
        seen.append(original(*args, **settings))
        return seen[-1]

    monkeypatch.setattr(module, "solve_columns", spy)
    problem = layer(draw(30, 96))
    packed = vptq(problem, **SMALL, residual_centroids=residual, norm=norm)
    order = problem.hessian().diagonal().argsort(descending=True, stable=True)
    assert torch.equal(packed.dequantize()[:, order], seen[-1].quantized)
    again = type(packed).from_tensors(packed.tensors(), packed.meta())
    assert torch.equal(again.dequantize(), packed.dequantize())


def test_the_loop_loses_less_than_kmeans_alone() -> None:
    """Both have the same book: it is drawn and clustered before the loop."""
    for seed in range(5):
        problem, alone = (layer(draw(96, 96, seed=seed), seed=seed) for _ in range(2))
        ours = vptq(problem, vector=4, centroids=64, iterations=25)
        theirs = vptq(alone, vector=4, centroids=64, iterations=25, compensate=False)
        assert torch.equal(ours.book, theirs.book)
        assert problem.log["proxy_loss"] < 0.85 * alone.log["proxy_loss"]


def test_a_residual_book_lowers_the_loss() -> None:
    for compensate in (True, False):
        one, two, more = (layer() for _ in range(3))
        main = vptq(one, **SMALL, compensate=compensate)
        packed = vptq(two, **SMALL, residual_centroids=16, compensate=compensate)
        vptq(more, **SMALL, residual_centroids=64, compensate=compensate)
        assert isinstance(packed, Sum)
        assert torch.equal(packed.parts[0].book, main.book)
        assert more.log["proxy_loss"] < two.log["proxy_loss"] < 0.6 * one.log["proxy_loss"]


def test_every_vector_takes_its_nearest_centroid() -> None:
    """Without compensation, in the units in which columns are normalised."""
    problem = layer()
    packed = vptq(problem, **SMALL, compensate=False)
    vectors = cut(((problem.weight - packed.bias.float()) / packed.scale.float()).T, 4)
    distances = torch.cdist(vectors, packed.book.float(), compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(distances.argmin(-1).T, packed.index().long())


def test_uncorrelated_inputs_give_kmeans_alone_in_any_order() -> None:
    problem = layer(x=torch.diag(torch.rand(96, generator=torch.Generator().manual_seed(1)) + 0.1))
    alone = solve(layer(x=next(problem.inputs())), **SMALL, compensate=False)
    problem = layer(x=torch.diag(torch.linspace(0.5, 2, 96)))
    for residual in (0, 8):
        values = [
            solve(
                LayerProblem("fc", problem.weight, generator=torch.Generator().manual_seed(0), inputs=problem.inputs),
                **SMALL,
                residual_centroids=residual,
                act_order=act_order,
                compensate=compensate,
            )
            for act_order in (True, False)
            for compensate in (True, False)
        ]
        assert all(torch.equal(values[0], others) for others in values[1:])
    assert not torch.equal(values[0], alone)


# Books.


@pytest.mark.parametrize("settings", [{}, {"vector": 4}, {"act_order": False}, {"norm": "std"}, {"norm": "off"}])
def test_a_book_with_room_for_every_vector_keeps_the_weight(settings: dict) -> None:
    problem = layer()
    packed = vptq(problem, **settings)
    assert torch.allclose(packed.dequantize(), problem.weight, rtol=0, atol=5e-3)
    vectors = 96 * 32 // settings.get("vector", 8)
    assert vectors // 2 < len(packed.book) // 2 <= vectors


def test_a_book_is_the_least_power_of_two_that_holds_the_distinct_vectors() -> None:
    entries = draw(5, 4).half().float()
    weight = entries[torch.randint(5, (8, 96), generator=torch.Generator().manual_seed(1))].transpose(1, 2)
    weight = weight.reshape(32, 96)
    packed = vptq(layer(weight), vector=4, norm="off")
    assert packed.book.shape == (8, 4)
    assert torch.equal(packed.dequantize(), weight)
    assert torch.equal(solve(layer(weight), vector=4, norm="off", centroids=8), weight)
    assert len(vptq(layer(weight), vector=4, norm="off", centroids=4).book) == 4
    assert len(vptq(layer(torch.ones(32, 96)), vector=4).book) == 2


@pytest.mark.parametrize("rows", [32, 30])
@pytest.mark.parametrize("residual", [0, 16])
@pytest.mark.parametrize("norm", ["minmax", "off"])
def test_bits_per_weight(rows: int, residual: int, norm: str) -> None:
    packed = vptq(layer(draw(rows, 96)), vector=4, centroids=64, residual_centroids=residual, norm=norm)
    vectors = -(-rows // 4) * 96
    index = vectors * (6 + (4 if residual else 0))
    book = 16 * 4 * (64 + residual)
    scales = {"off": 0, "minmax": 3 if residual else 2}[norm] * 16 * 96
    assert packed.bits == index + book + scales
    assert packed.bits_per_weight == pytest.approx((index + book + scales) / (rows * 96))


def test_one_seed_gives_one_result() -> None:
    values = [solve(layer(seed=seed), **SMALL, residual_centroids=8) for seed in (3, 3, 4)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_weighting_by_the_hessian_lowers_the_loss_of_kmeans() -> None:
    """One input in 37 is ten times the others."""
    losses = {}
    for weighted in (True, False):
        problem = layer(draw(64, 96))
        vptq(problem, **SMALL, weighted=weighted, compensate=False)
        losses[weighted] = problem.log["proxy_loss"]
    assert losses[True] < 0.9 * losses[False]


def test_plain_kmeans_does_not_depend_on_the_inputs() -> None:
    settings: dict[str, Any] = {**SMALL, "weighted": False, "compensate": False}
    assert torch.equal(solve(layer(), **settings), solve(layer(x=draw(200, 96, seed=5)), **settings))


# Columns.


def test_the_norm_takes_scales_and_offsets_out() -> None:
    """Powers of two and halves change no digit, so the same centroids are chosen."""
    weight = (draw(32, 96) * 256).round() / 256
    weight[0], weight[1] = 4.0, -4.0
    factors = 2.0 ** (torch.arange(96) % 5)
    settings: dict[str, Any] = {**SMALL, "weighted": False, "compensate": False, "residual_centroids": 8}
    plain, scaled = solve(layer(weight), **settings), solve(layer(weight * factors), **settings)
    assert torch.equal(plain * factors, scaled)
    moved = solve(layer(weight + 0.5), **settings)
    assert torch.allclose(moved - 0.5, plain, atol=1e-5)
    without = solve(layer(weight * factors), **{**settings, "norm": "off"})
    assert not torch.equal(without, scaled)


def test_constant_columns_are_their_bias() -> None:
    weight = draw(32, 96)
    weight[:, 7], weight[:, 9] = 0.3, -100.0
    weight[::2, 9] -= 1e-4
    packed = vptq(layer(weight), **SMALL)
    values = packed.dequantize()
    assert (values[:, 7] == torch.tensor(0.3).half().float()).all()
    assert (values[:, 9] == -100).all()
    assert packed.scale[7] == packed.scale[9] == 0
    assert vptq(layer(weight), **SMALL, norm="std").scale[7] == 0


@pytest.mark.parametrize("factor", [1e-9, 1e-6, 1e6])
@pytest.mark.parametrize("norm", ["minmax", "std", "off"])
def test_weights_that_half_precision_does_not_hold(factor: float, norm: str) -> None:
    assert solve(layer(draw(32, 96) * factor), **SMALL, residual_centroids=8, norm=norm).isfinite().all()


@pytest.mark.parametrize("norm", ["minmax", "std"])
def test_dead_inputs_cost_nothing_and_change_nothing_else(norm: str) -> None:
    x = correlated(400, 96)
    x[:, 5] = 0
    problem = layer(x=x)
    values = solve(problem, **SMALL, norm=norm)
    assert not values[:, 5].any()
    weight = problem.weight.clone()
    weight[0, 5] = 100
    assert torch.equal(solve(layer(weight, x), **SMALL, norm=norm), values)


def test_inputs_that_are_all_dead() -> None:
    for norm in ("minmax", "std", "off"):
        assert not solve(layer(x=torch.zeros(10, 96)), **SMALL, norm=norm, residual_centroids=4).any()


@pytest.mark.parametrize("rows", [1, 3, 4, 13])
def test_rows_that_vectors_do_not_divide(rows: int) -> None:
    problem = layer(draw(rows, 96))
    packed = vptq(problem, vector=4, centroids=32, residual_centroids=4)
    assert packed.shape == (rows, 96)
    values = packed.dequantize()
    assert problem.log["proxy_loss"] == pytest.approx(proxy_loss(problem, values), rel=1e-3, abs=1e-6)
    assert proxy_loss(problem, values) < 0.5 * proxy_loss(problem, torch.zeros(rows, 96))


def test_the_last_vector_goes_on_with_the_first_outputs() -> None:
    assert cut(torch.arange(5.0), 4).tolist() == [[0, 1, 2, 3], [4, 0, 1, 2]]
    assert cut(torch.arange(2.0)[None], 5).tolist() == [[[0, 1, 0, 1, 0]]]


def test_one_column() -> None:
    values = solve(layer(draw(16, 1), draw(10, 1, seed=1)), vector=2, centroids=4)
    assert values.shape == (16, 1)
    assert values.isfinite().all()


# Refusals.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("centroids", 100),
        ("centroids", 1),
        ("centroids", 2**17),
        ("residual_centroids", 3),
        ("vector", 0),
        ("norm", "max"),
        ("iterations", 0),
    ],
)
def test_parameters_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"vptq: {name}={value!r} is not accepted; it takes"):
        registry.get("vptq").params[name].check(value, "vptq")


def test_no_calibration_rows() -> None:
    with pytest.raises(BadInput, match=r"layer blocks\.0\.fc: no calibration rows"):
        vptq(layer(x=torch.zeros(0, 96)))


# k-means.


def kmeans(vectors: Tensor, weights: Tensor, k: int, seed: int = 0, **settings: Any) -> tuple[Tensor, list[float]]:
    return weighted_kmeans(vectors, weights, k, torch.Generator().manual_seed(seed), **settings)


def test_the_error_never_rises_and_the_end_is_a_fixed_point() -> None:
    vectors, weights = draw(500, 3), draw(500, seed=1).square()
    centers, errors = kmeans(vectors, weights, 12, iterations=1000, tolerance=0.0)
    assert all(after <= before for before, after in pairwise(errors))
    assert errors[-1] < 0.8 * errors[0]
    assert len(errors) < 1000
    codes = nearest(vectors, centers)
    for k in range(12):
        mean = (weights[:, None] * vectors)[codes == k].sum(0) / weights[codes == k].sum()
        assert torch.allclose(centers[k], mean, atol=1e-5)


def test_tolerance_and_iterations_end_it() -> None:
    vectors, weights = draw(500, 3), torch.ones(500)
    _, errors = kmeans(vectors, weights, 12, tolerance=0.01)
    falls = [(before - after) / before for before, after in pairwise(errors)]
    assert falls[-1] <= 0.01 < min(falls[:-1])
    assert len(kmeans(vectors, weights, 12, iterations=3)[1]) == 3


def test_a_weight_counts_as_so_many_vectors() -> None:
    vectors, counts = draw(40, 2), torch.arange(40) % 3 + 1
    one, _ = kmeans(vectors, counts.float(), 1)
    assert torch.allclose(one, vectors.repeat_interleave(counts, 0).mean(0), atol=1e-6)


def test_centers_that_nothing_is_nearest_to_are_moved() -> None:
    """Most vectors are one point, so most of the random start is, too."""
    vectors = torch.cat([torch.zeros(500, 2), draw(15, 2)])
    for seed in range(5):
        centers, errors = kmeans(vectors, torch.ones(515), 16, seed)
        assert errors[-1] == 0
        assert len(centers.unique(dim=0)) == 16


def test_vectors_without_weight_draw_no_center() -> None:
    vectors = torch.cat([draw(60, 2), 100 + draw(60, 2, seed=1)])
    centers, _ = kmeans(vectors, torch.arange(120).lt(60).float(), 8)
    assert centers.abs().max() < 10


def test_separate_clusters_are_found_from_a_start_inside_them() -> None:
    points = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    vectors = points.repeat(50, 1) + draw(150, 2)
    found = min((kmeans(vectors, torch.ones(150), 3, seed) for seed in range(5)), key=lambda result: result[1][-1])[0]
    assert torch.cdist(points, found).amin(1).max() < 0.5


def test_nearest_is_the_first_of_equals_and_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, centers = draw(300, 4), draw(20, 4, seed=1)
    codes = nearest(vectors, centers)
    assert torch.equal(codes, torch.cdist(vectors, centers).argmin(1))
    monkeypatch.setattr("methods.quantization.kmeans.CHUNK", 50)
    assert torch.equal(nearest(vectors, centers), codes)
    assert nearest(torch.ones(1, 2), torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])).tolist() == [1]
