"""Quantizers that train: their grids, their gradients, what is stored, and what is held."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.errors import BadInput
from harness.metrics.oscillation import oscillation
from harness.models.vision import Attention
from harness.parts.ste import LSQ, ActivationLSQ, Held, Oscillations, StatsQ, straight_through
from harness.tracks import train
from methods.training.lowbit import LowBitAttention
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
    solution = ofq(problem, bits=2, activation_bits=16, qkr=False)
    weight = solution.model.blocks[0].mlp.fc1.weight
    assert all(len(row.unique()) <= 4 for row in weight)
    assert len(solution.model.head.weight[0].unique()) > 4
    left = problem.budget.granted.forward - problem.budget.passes.forward
    assert 0 <= left < 2 * problem.budget.batch
    stored = train.size(problem, solution)["model_bytes"]
    assert stored < sum(t.nbytes for t in solution.model.state_dict().values()) / 2
    found = oscillation(train.subject(problem, solution))
    assert set(found.extra) == {
        f"blocks.0.{name}" for name in ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.fc1", "mlp.fc2")
    }


def attention(heads: int = 2) -> tuple[Attention, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Attention(8, heads), torch.randn(3, 5, 8)


def test_joint_queries_and_keys_are_ordinary_attention_without_their_biases():
    ordinary, x = attention()
    with torch.no_grad():
        ordinary.q.bias.zero_()
        ordinary.k.bias.zero_()
    expected = ordinary(x)
    joint = LowBitAttention(ordinary, joint=True)
    assert joint.product().shape == (2 * 8, 8)
    torch.testing.assert_close(joint(x), expected, rtol=0, atol=1e-5)


def test_attention_that_rounds_nothing_is_ordinary_attention():
    ordinary, x = attention()
    expected = ordinary(x)
    torch.testing.assert_close(LowBitAttention(ordinary, joint=False)(x), expected, rtol=0, atol=1e-5)


def test_a_rounded_product_moves_queries_and_keys_but_for_what_is_held():
    ordinary, x = attention()
    joint = LowBitAttention(ordinary, joint=True)
    joint.quantizer = StatsQ(2)
    joint(x).square().sum().backward()
    assert all(layer.weight.grad.abs().max() > 0 for layer in (joint.q, joint.k))
    first = joint.q.weight.grad.clone()
    joint.zero_grad()
    # With all entries of the first head held, only the second's rows of the weights move.
    joint.held = lambda quantizer, product: (torch.arange(16) < 8)[:, None].expand(16, 8)
    joint(x).square().sum().backward()
    assert joint.q.weight.grad[:4].abs().max() == 0
    torch.testing.assert_close(joint.q.weight.grad[4:], first[4:])


def test_rounded_activations_have_a_step_a_channel():
    sample = torch.randn(200, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 5.0, 0.0])
    rounding = ActivationLSQ(2, sample)
    found = rounding(sample) / rounding.step
    assert [sorted(set(found[:, at].round(decimals=4).tolist())) for at in range(3)] == [[-2, -1, 0, 1]] * 2 + [[0]]
    shares = torch.rand(200, 3, generator=torch.Generator().manual_seed(2)) ** 4
    unsigned = ActivationLSQ(2, shares, unsigned=True)
    assert set((unsigned(shares) / unsigned.step).round(decimals=4).unique().tolist()) == {0, 1, 2, 3}


def test_gradients_of_rounded_activations_are_those_of_the_paper():
    rounding = ActivationLSQ(2, torch.ones(4, 1))
    with torch.no_grad():
        rounding.step.fill_(1.0)
    x = torch.tensor([[0.3], [0.8], [7.0], [-9.0]], requires_grad=True)
    rounding(x).sum().backward()
    assert x.grad.flatten().tolist() == [1, 1, 0, 0]
    # round(v) - v inside, the end beyond, over the root of (values a step serves) times (largest value)
    expected = ((0 - 0.3) + (1 - 0.8) + 1 - 2) / (4 * 1) ** 0.5
    torch.testing.assert_close(rounding.step.grad.flatten(), torch.tensor([expected]))
    assert rounding.before.grad.item() == 2
    assert rounding.after.grad.item() == 4


def test_ofq_of_two_bits_in_all_stores_the_product_of_queries_and_keys():
    problem = train.build(VIT, seed=0)
    solution = ofq(problem, bits=2)
    product = solution.model.blocks[0].attn.stored
    assert product.shape == (2 * 16, 16)
    assert all(len(row.unique()) <= 4 for row in product)
    assert solution.stored["blocks.0.attn.codes"].nbytes == 2 * 16 * 16 * 2 / 8
    assert not any(".attn.q." in name or ".attn.k." in name for name in solution.stored)
    assert "blocks.0.mlp.fc1.rounding.step" in solution.stored
    spent, granted = problem.budget.passes, problem.budget.granted
    assert 0 <= granted.forward - spent.forward < 2 * problem.budget.batch
    assert "blocks.0.attn" in oscillation(train.subject(problem, solution)).extra


def test_ofq_refuses_sixteen_bits_and_the_metric_a_method_without_codes():
    problem = train.build(VIT, seed=0)
    with pytest.raises(BadInput, match="ofq: bits=16 is not accepted; it takes 1 to 8"):
        ofq(problem, bits=16)
    from methods.training.adamw import adamw

    with pytest.raises(BadInput, match="metric oscillation is for methods that train quantized weights"):
        oscillation(train.subject(problem, adamw(problem)))
