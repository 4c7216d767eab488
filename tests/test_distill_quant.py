"""Quantized distillation and differentiable quantization: buckets, points, gradients, and what is stored."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from harness import registry
from harness.errors import BadInput
from harness.packed.bits import unpack_bits
from harness.tracks import distill
from methods.distillation.buckets import Points, at_quantiles, evenly, into_buckets, keep_rounded, rounded_layers
from methods.distillation.differentiable_quantization import differentiable_quantization
from methods.distillation.quantized_distillation import quantized_distillation

W = torch.randn(12, 50, generator=torch.Generator().manual_seed(0))
IMAGES, TEXT = distill.samples(registry.get("kd"))


def problem(spec: dict = IMAGES):
    return distill.build(copy.deepcopy(spec), seed=3)


def test_buckets_give_the_weight_back_and_fill_the_last_with_its_last_value():
    buckets = into_buckets(W, 256)
    assert buckets.values.shape == (3, 256)
    assert buckets.values.min() == 0
    assert buckets.values.max() == 1
    torch.testing.assert_close(buckets.restored(buckets.values, W.shape), W)
    filled = buckets.restored(buckets.values, torch.Size([3, 256]))[2]
    torch.testing.assert_close(filled[600 - 512 :], W.flatten()[-1].expand(168))


def test_eight_bits_are_off_by_half_a_step_at_most():
    alpha = into_buckets(W, 256).alpha.max()
    assert (Points(evenly(8), 256)(W) - W).abs().max() <= alpha / (2 * 255) * (1 + 1e-5)


def test_a_bucket_of_one_value_is_itself():
    constant = torch.full((4, 64), 0.3)
    assert torch.equal(Points(evenly(2), 128)(constant), constant)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_every_bucket_has_its_levels(bits):
    weight = torch.randn(8, 256, generator=torch.Generator().manual_seed(1))
    for row in Points(evenly(bits), 256)(weight):
        assert len(row.unique()) == 2**bits


def test_the_gradient_is_the_one_at_the_rounded_weights():
    x = torch.randn(20, 50, generator=torch.Generator().manual_seed(2))
    layer, rounded = nn.Linear(50, 12), nn.Linear(50, 12)
    with torch.no_grad():
        layer.weight.copy_(W)
        rounded.weight.copy_(Points(evenly(2), 256)(W))
        rounded.bias.copy_(layer.bias)
    points = {"0": Points(evenly(2), 256)}
    model = nn.Sequential(layer)
    rounded_layers(model, points)
    for one in (model, rounded):
        one(x).square().sum().backward()
    torch.testing.assert_close(model[0].parametrizations.weight.original.grad, rounded.weight.grad)


def test_a_points_gradient_is_its_finite_difference():
    weight = W.double()
    target = torch.randn(12, 50, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    points = Points(at_quantiles(into_buckets(weight, 100).values, 2), 100, learned=True)
    ((points(weight) - target) ** 2).sum().backward()
    for at in range(4):
        found = []
        for sign in (1, -1):
            moved = points.points.detach().clone()
            moved[at] += sign * 1e-6
            buckets = into_buckets(weight, 100)
            fixed = buckets.restored(moved[points.codes(buckets.values)], weight.shape)  # assignments as they were
            found.append(float(((fixed - target) ** 2).sum()))
        assert float(points.points.grad[at]) == pytest.approx((found[0] - found[1]) / 2e-6, rel=1e-4)


def test_the_objective_never_rises_while_assignments_stay():
    weight = W.double()
    buckets = into_buckets(weight, 100)
    points = nn.Parameter(evenly(2).double())
    codes = Points(evenly(2).double(), 100).codes(buckets.values)
    seen = []
    for _ in range(50):
        loss = ((buckets.restored(points[codes], weight.shape) - weight) ** 2).sum()
        seen.append(float(loss.detach()))
        (gradient,) = torch.autograd.grad(loss, points)
        points.data -= 1e-5 * gradient
    assert all(later <= earlier for earlier, later in itertools.pairwise(seen))
    assert seen[-1] < seen[0]


def test_points_that_start_evenly_compute_what_the_other_method_does():
    assert torch.equal(Points(evenly(3), 100, learned=True)(W), Points(evenly(3), 100)(W))


def test_quantile_points_are_sorted_and_hold_equal_parts():
    values = into_buckets(torch.randn(1, 4096, generator=torch.Generator().manual_seed(4)), 4096).values
    points = at_quantiles(values, 2)
    assert torch.equal(points, points.sort().values)
    assert (float(points[0]), float(points[-1])) == (0.0, 1.0)
    between = ((values > points[1]) & (values <= points[2])).double().mean()
    assert float(between) == pytest.approx(1 / 3, abs=0.01)


def test_what_is_stored_is_the_model_in_few_bits():
    layer = nn.Linear(256, 8)
    model, points = nn.Sequential(layer), {"0": Points(evenly(2), 256)}
    rounded_layers(model, points)
    stored = keep_rounded(model, points)
    payload = sum(stored[f"0.{part}"].nbytes for part in ("codes", "alpha", "beta"))
    assert 8 * payload / (256 * 8) == 2 + 64 / 256
    assert set(stored) == {"0.codes", "0.alpha", "0.beta", "0.bias"}
    codes = unpack_bits(stored["0.codes"], 2, 256)
    read = stored["0.alpha"] * evenly(2)[codes.long()] + stored["0.beta"]
    torch.testing.assert_close(read, model[0].weight.detach())


@pytest.mark.parametrize("rounded", ["throughout", "after"])
def test_a_distilled_student_has_few_values(rounded):
    given = problem()
    solution = quantized_distillation(given, bits=2, rounded=rounded)
    for layer in (*solution.model.layers, solution.model.head):
        rows = into_buckets(layer.weight, 256)
        torch.testing.assert_close(rows.values * 3, (rows.values * 3).round(), rtol=0, atol=1e-4)
    assert distill.size(given, solution)["model_bytes"] < 0.3 * sum(p.nbytes for p in solution.model.parameters())


def test_the_ends_may_stay_as_they_are():
    solution = quantized_distillation(problem(), bits=2, ends=False)
    kept = {name.split(".codes")[0] for name in solution.stored if name.endswith(".codes")}
    assert kept == {"layers.1"}


def test_learned_points_move_and_stay_in_order_and_weights_do_not_move_with_them():
    slow, fast = (differentiable_quantization(problem(), bits=2, points_lr=rate, momentum=0.0) for rate in (1e-9, 1e-2))
    for name in (name for name in slow.stored if name.endswith(".points")):
        points = fast.stored[name]
        assert torch.equal(points, points.sort().values)
        assert not torch.equal(points, slow.stored[name])
    for part in ("alpha", "beta"):  # the range of the weights that were rounded
        assert torch.equal(slow.stored[f"head.{part}"], fast.stored[f"head.{part}"])


@pytest.mark.parametrize("method", [quantized_distillation, differentiable_quantization])
def test_tied_embeddings_stay_tied(method):
    solution = method(problem(TEXT), bits=2)
    assert solution.model.lm_head.weight is solution.model.model.embed_tokens.weight
    assert not any(name.startswith("lm_head") and name.endswith("codes") for name in solution.stored)


@pytest.mark.parametrize("method", [quantized_distillation, differentiable_quantization])
def test_sixteen_bits_are_refused(method):
    with pytest.raises(BadInput, match=f"{method.__name__}: bits=16 is not accepted; it takes 1 to 8"):
        method(problem(), bits=16)
