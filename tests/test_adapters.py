"""Adapters, the budget matcher, masks and coupled slices: the identities that they must keep."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from harness.errors import BadInput
from harness.models.inside import body_layers, weight_of
from harness.parts import masks
from harness.parts.adapters import (
    Bat,
    Bone,
    LoRA,
    adapter_state,
    attach,
    load_adapter_state,
    merge,
    numbers,
    trains,
    unmerge,
)
from harness.parts.coupled import (
    SliceLinear,
    SliceProduct,
    add_columns,
    attention_heads,
    ffn_channels,
    permute,
    updated_layers,
)
from harness.parts.matching import match, shared_out


class Small(nn.Module):
    """A convolution with stride, padding and groups, and two linear layers, all in a list."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            [nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), nn.Linear(8, 12), nn.Linear(12, 8, bias=False)]
        )

    def forward(self, x):
        x = self.blocks[0](x).mean((2, 3))
        return self.blocks[2](torch.relu(self.blocks[1](x)))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Small()


X = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def lora(name, shape):
    return LoRA(shape, 3, 2.0, torch.Generator().manual_seed(2))


def bone(name, shape):
    return Bone(shape, 5)  # divides none of the layers


def bat(name, shape):
    return Bat(shape, 2)


MAKES = [lora, bone, bat]


def moved(adapters):
    """The adapters with a change that is not zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for one in adapters.values():
            for parameter in one.parameters():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return adapters


@pytest.mark.parametrize("make", MAKES)
def test_an_adapter_changes_nothing_at_first_and_merging_changes_nothing_later(model, make):
    before = model(X)
    names = set(model.state_dict())
    adapters = attach(model, body_layers(model), make)
    assert torch.equal(model(X), before)
    moved(adapters)
    attached = model(X)
    assert not torch.allclose(attached, before)
    merge(model, adapters)
    torch.testing.assert_close(model(X), attached, rtol=1e-5, atol=1e-5)
    assert set(model.state_dict()) == names


@pytest.mark.parametrize("make", MAKES)
def test_unmerging_takes_back_what_was_merged(model, make):
    before = copy.deepcopy(model.state_dict())
    adapters = moved(attach(model, body_layers(model), make))
    merge(model, adapters)
    unmerge(model, adapters)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", MAKES)
def test_only_the_adapter_gets_gradients_and_its_numbers_are_counted(model, make):
    adapters = attach(model, body_layers(model), make)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trains(name))
    moved(adapters)
    model(X).square().sum().backward()
    trained = [p for p in model.parameters() if p.grad is not None]
    assert sum(p.numel() for p in trained) == numbers(adapters)
    kind = type(next(iter(adapters.values())))
    size = {LoRA: 3, Bone: 5, Bat: 2}[kind]
    shapes = [(8, 18), (12, 8), (8, 12)]
    assert numbers(adapters) == sum(kind.count(shape, size) for shape in shapes)


@pytest.mark.parametrize("make", MAKES)
def test_stored_adapters_give_the_same_outputs(model, make):
    other = copy.deepcopy(model)
    adapters = moved(attach(model, body_layers(model), make))
    state = {name: tensor.clone() for name, tensor in adapter_state(adapters).items()}
    load_adapter_state(attach(other, body_layers(other), make), state)
    assert torch.equal(other(X), model(X))
    with pytest.raises(BadInput, match="does not fit"):
        load_adapter_state(adapters, dict(list(state.items())[1:]))


def test_a_second_adapter_on_a_layer_is_refused(model):
    attach(model, ["blocks.1"], lora)
    with pytest.raises(BadInput, match=r"layer blocks\.1 has an adapter"):
        attach(model, ["blocks.1"], bone)


def test_bone_has_rank_r_at_most_and_bat_is_not_bound():
    weight = torch.randn(12, 8, generator=torch.Generator().manual_seed(4))
    low, free = (moved({"": kind(weight.shape, 2)})[""] for kind in (Bone, Bat))
    assert torch.linalg.matrix_rank(low.delta(weight)) == 2
    assert torch.linalg.matrix_rank(free.delta(weight)) == 8


def test_bone_sums_the_pieces_of_its_input():
    """The form of the paper: y = W x + B^T (sum of the r-wide pieces of x, the tail padded with zeros)."""
    layer = nn.Linear(7, 6, bias=False)
    adapter = moved({"": Bone((6, 7), 3)})[""]
    x = torch.randn(4, 7)
    pieces = torch.cat([x, torch.zeros(4, 2)], 1).view(4, 3, 3).sum(1)
    expected = layer(x) + pieces @ adapter.B
    torch.testing.assert_close(x @ (layer.weight + adapter.delta(layer.weight)).T, expected)


def test_bat_of_a_weight_of_zeros_is_bone():
    bat = moved({"": Bat((6, 9), 3)})[""]
    bone = Bone((6, 9), 3)
    with torch.no_grad():
        bone.B.copy_(bat.B.flatten(0, 1).T)
    assert torch.equal(bat.delta(torch.zeros(6, 9)), bone.delta(torch.zeros(6, 9)))


def test_bat_refuses_a_block_that_does_not_divide():
    with pytest.raises(BadInput, match=r"bat: block=4 does not divide a weight of 6 x 8"):
        Bat((6, 8), 4)


def test_the_nearest_size_is_matched_and_what_is_left_is_recorded():
    found = match(100, range(1, 50), lambda rank: 30 * rank, "rank")
    assert (found.choice, found.numbers, found.log["left"]) == (3, 90, 10)
    assert match(45, [1, 2], lambda rank: 30 * rank, "rank").choice == 1  # as near: the smaller
    with pytest.raises(BadInput, match="no block fits"):
        match(10, [], len, "block")


def test_parts_add_up_to_the_total_within_their_room():
    assert shared_out(10, [1, 1, 1], [99, 99, 99]) == [4, 3, 3]
    assert shared_out(10, [1, 1], [2, 99]) == [2, 8]
    assert shared_out(50, [1, 2], [3, 4]) == [3, 4]
    assert sum(shared_out(2048, [320, 256, 256], [8192, 16384, 16384])) == 2048


W = torch.randn(9, 14, generator=torch.Generator().manual_seed(5))


def test_a_mask_has_exactly_its_count_also_among_equals():
    assert len(masks.top(torch.ones(9, 14), 17)) == 17
    assert masks.top(torch.tensor([[1.0, 3.0], [3.0, 2.0]]), 2).tolist() == [1, 2]


def test_principal_weights_are_the_largest_where_nothing_is_truncated():
    largest = masks.top(W.abs(), 20)
    assert torch.equal(masks.top(masks.score(W, "lowrank", rank=9), 20), largest)
    low = masks.truncate(W, 2)
    assert torch.equal(masks.top(masks.score(low, "lowrank", rank=2), 20), masks.top(low.abs(), 20))
    some, scaled = (masks.top(masks.score(w, "lowrank", rank=2), 20) for w in (W, 8 * W))
    assert torch.equal(some, scaled)
    assert not torch.equal(some, largest)


def stepped(optimizer, parameter, steps):
    generator = torch.Generator().manual_seed(6)
    for _ in range(steps):
        parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def test_masked_adamw_with_every_entry_is_adamw():
    dense, sparse = nn.Parameter(W.clone()), nn.Parameter(W.clone())
    options = {"lr": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.1}
    stepped(torch.optim.AdamW([dense], **options), dense, 20)
    stepped(masks.MaskedAdamW([sparse], [torch.arange(W.numel())], **options), sparse, 20)
    torch.testing.assert_close(sparse, dense, rtol=1e-6, atol=1e-6)


def test_masked_adamw_leaves_the_others_bit_for_bit_and_keeps_moments_when_entries_change():
    parameter = nn.Parameter(W.clone())
    optimizer = masks.MaskedAdamW([parameter], [torch.tensor([3, 40, 77])], lr=1e-2, weight_decay=0.5)
    stepped(optimizer, parameter, 5)
    changed = (parameter.detach() != W).flatten().nonzero().flatten()
    assert changed.tolist() == [3, 40, 77]
    kept = {name: optimizer.state[parameter][name].clone() for name in ("mean", "square")}
    optimizer.choose(0, torch.tensor([40, 50]))
    for name, values in kept.items():
        assert optimizer.state[parameter][name].tolist() == [values[1].item(), 0.0]
    assert optimizer.state[parameter]["step"] == 5


def test_masked_adamw_continues_from_its_saved_state():
    runs = []
    for stop in (False, True):
        parameter = nn.Parameter(W.clone())
        optimizer = masks.MaskedAdamW([parameter], [torch.tensor([3, 40])], lr=1e-2)
        stepped(optimizer, parameter, 3)
        if stop:
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = masks.MaskedAdamW([parameter], [torch.tensor([1, 2])], lr=1e-2)
            optimizer.load_state_dict(state)
        stepped(optimizer, parameter, 3)
        runs.append(parameter.detach().clone())
    assert torch.equal(*runs)


@pytest.mark.parametrize(("count", "kind"), [(3, "indices"), (100, "mask")])
def test_a_sparse_update_is_stored_the_smaller_way_and_applied_bit_for_bit(count, kind):
    after = W.clone().flatten()
    after[torch.randperm(W.numel(), generator=torch.Generator().manual_seed(7))[:count]] += 1
    after = after.view_as(W)
    update = masks.sparse_update(W, after)
    assert kind in update
    assert len(update["values"]) == count
    assert torch.equal(masks.apply_update(W, update), after)
    with pytest.raises(BadInput, match="does not fit"):
        masks.apply_update(W.flatten()[:20], {"values": torch.zeros(1), "indices": torch.tensor([99])})


def small_llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attention_bias=True, mlp_bias=True,
    )  # fmt: skip
    torch.manual_seed(8)
    return LlamaForCausalLM(config).eval()


TOKENS = torch.arange(12).view(2, 6)


@pytest.mark.parametrize(("groups", "count"), [(ffn_channels, 2), (attention_heads, 2)])
def test_moving_units_leaves_the_logits_also_with_grouped_queries(groups, count):
    llama = small_llama()
    before = llama(TOKENS).logits
    found = groups(llama)
    assert len(found) == count
    for one in found:
        assert one.units == (48 if groups is ffn_channels else 2)
        order = torch.randperm(one.units, generator=torch.Generator().manual_seed(9)).flip(0)
        permute(llama, one, order if one.units > 2 else torch.tensor([1, 0]))
    torch.testing.assert_close(llama(TOKENS).logits, before, rtol=1e-4, atol=1e-5)
    assert not torch.equal(weight_of(llama, found[0].reader), weight_of(small_llama(), found[0].reader))


def test_a_slice_is_a_dense_layer_whose_first_columns_train_and_saves_only_their_input():
    layer = nn.Linear(10, 6)
    sliced = SliceLinear(copy.deepcopy(layer), 3)
    x = torch.randn(2, 4, 10, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        product = SliceProduct.apply(x, layer.weight.detach(), sliced.slice)
    assert sorted(tuple(t.shape) for t in saved) == [(2, 4, 3), (6, 3), (6, 10)]
    torch.testing.assert_close(product + layer.bias, layer(x))
    layer(x).square().sum().backward()
    dense, expected = x.grad.clone(), layer.weight.grad[:, :3]
    x.grad = None
    sliced(x).square().sum().backward()
    torch.testing.assert_close(x.grad, dense)
    torch.testing.assert_close(sliced.slice.grad, expected)


def test_updates_of_other_columns_add_up_and_come_out_again():
    model = nn.Sequential(nn.Linear(6, 4))
    before = model[0].weight.detach().clone()
    one = {"0.indices": torch.tensor([1, 4], dtype=torch.int16), "0.values": torch.ones(4, 2)}
    two = {"0.indices": torch.tensor([0], dtype=torch.int16), "0.values": 2 * torch.ones(4, 1)}
    add_columns(model, one)
    add_columns(model, two)
    changed = (model[0].weight.detach() - before).mean(0)
    torch.testing.assert_close(changed, torch.tensor([2.0, 1.0, 0.0, 0.0, 1.0, 0.0]))
    assert list(updated_layers(one)) == ["0"]
