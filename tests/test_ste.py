"""Quantizers that train: their grids, their gradients, what is stored, and what is held."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.errors import BadInput
from harness.metrics.oscillation import oscillation
from harness.parts.ste import LSQ, Held, Oscillations, StatsQ, straight_through
from harness.tracks import train
from methods.training.ofq import far_from_boundary, ofq

W = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
VIT = {**train.sample(), "model": "vit(dim=16, depth=1, heads=2, mlp_dim=24)"}


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_statsq_has_exactly_its_values_in_every_row_and_none_is_zero(bits):
    found = StatsQ(bits)(W)
    steps = found / StatsQ(bits).scale(W) * 2**bits
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
    for row in steps.round():
        assert set(row.tolist()) == set(range(1 - 2**bits, 2**bits, 2))


def test_statsq_of_many_bits_is_the_weight_within_its_range():
    inside = W.clamp(-0.9, 0.9)
    torch.testing.assert_close(StatsQ(8)(inside), inside, rtol=0, atol=0.02)


def test_the_scale_does_not_know_the_order_and_follows_the_size():
    scale = StatsQ(2).scale(W)
    torch.testing.assert_close(StatsQ(2).scale(W.flip(1)), scale)
    torch.testing.assert_close(StatsQ(2).scale(4 * W), 4 * scale, rtol=0, atol=0)


def test_gradients_pass_as_they_are_also_beyond_the_grid():
    weight = (10 * W).requires_grad_()
    pull = torch.randn(W.shape, generator=torch.Generator().manual_seed(1))
    (StatsQ(2)(weight) * pull).sum().backward()
    assert torch.equal(weight.grad, pull)
    x = torch.ones(3, requires_grad=True)
    straight_through(x, torch.zeros(3)).sum().backward()
    assert x.grad.tolist() == [1, 1, 1]


def test_the_step_of_lsq_has_the_papers_gradient():
    quantizer = LSQ(3, W)
    quantizer(W).sum().backward()
    v = W / quantizer.step.detach()
    inside = (v > -4) & (v < 3)
    each = torch.where(inside, v.round() - v, v.clamp(-4, 3))
    torch.testing.assert_close(quantizer.step.grad, each.sum(1, keepdim=True) / (64 * 4) ** 0.5, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("quantizer", [StatsQ(2), StatsQ(3), LSQ(2, W), LSQ(4, W)], ids=["s2", "s3", "l2", "l4"])
def test_what_is_stored_gives_the_values_that_trained(quantizer):
    packed = quantizer.packed(W)
    torch.testing.assert_close(packed.dequantize(), quantizer(W).detach(), rtol=1e-3, atol=1e-4)
    scales = 32 if isinstance(quantizer, StatsQ) else 16  # a half-integer zero beside the scale
    assert packed.bits == 6 * (quantizer.bits * 64 + scales)


def test_held_entries_are_bit_for_bit_what_they_were():
    parameter = nn.Parameter(W.clone())
    mask = torch.rand(W.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    optimizer = Held(torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.5), lambda p: mask)
    for step in range(3):
        parameter.grad = torch.randn(W.shape, generator=torch.Generator().manual_seed(step))
        optimizer.step()
    assert torch.equal(parameter.detach()[mask], W[mask])
    assert (parameter.detach() != W)[~mask].all()


def test_the_boundary_of_a_half_holds_nothing_and_of_none_everything():
    inside = W.clamp(-0.4, 0.4) * StatsQ(2).scale(W)
    assert far_from_boundary(StatsQ(2), inside, 0.0).all()
    assert not far_from_boundary(StatsQ(2), inside, 1.0).any()
    two_bits = StatsQ(2)
    near = torch.tensor([[1.0, -1.0, 0.0, 2.0]])  # scale 2: 0 and +-1 are boundaries of the grid -1.5, -0.5, 0.5, 1.5
    assert far_from_boundary(two_bits, near, 0.01).tolist() == [[False, False, False, True]]


def test_turning_back_is_counted_against_the_last_change():
    seen = Oscillations()
    for codes in ([0, 0], [1, 0], [1, 1], [0, 2], [1, 2]):
        seen.look("a", torch.tensor(codes))
    assert seen.rates() == {"a": pytest.approx(2 / 8)}


def test_ofq_gives_a_model_of_few_values_and_counts_their_bits():
    problem = train.build(VIT, seed=0)
    solution = ofq(problem, bits=2)
    weight = solution.model.blocks[0].mlp.fc1.weight
    assert all(len(row.unique()) <= 4 for row in weight)
    assert len(solution.model.head.weight[0].unique()) > 4
    left = problem.budget.granted.forward - problem.budget.passes.forward
    assert 0 <= left < 2 * problem.budget.batch
    stored = train.size(problem, solution)["model_bytes"]
    assert stored < sum(t.nbytes for t in solution.model.state_dict().values()) / 2
    found = oscillation(train.subject(problem, solution))
    assert set(found.ids) == {
        f"blocks.0.{name}" for name in ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.fc1", "mlp.fc2")
    }


def test_ofq_refuses_sixteen_bits_and_the_metric_a_method_without_codes():
    problem = train.build(VIT, seed=0)
    with pytest.raises(BadInput, match="ofq: bits=16 is not accepted; it takes 1 to 8"):
        ofq(problem, bits=16)
    from methods.training.adamw import adamw

    with pytest.raises(BadInput, match="metric oscillation is for methods that train quantized weights"):
        oscillation(train.subject(problem, adamw(problem)))
