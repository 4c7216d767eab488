"""LoRA and Bone beside peft's on the same weights and numbers; peft calls Bone's later form MiSS, and keeps `bat`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from harness.parts.adapters import Bat, Bone, LoRA, attach

peft = pytest.importorskip("peft")

X = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))


def pair(config, make):
    """Our model and peft's with an adapter on the same layer, and the adapters."""
    torch.manual_seed(1)
    ours = nn.Sequential(nn.Linear(12, 8), nn.Tanh())
    theirs = peft.get_peft_model(copy.deepcopy(ours), config)
    adapter = attach(ours, ["0"], lambda name, shape: make(shape))["0"]
    return ours, theirs, adapter, theirs.base_model.model[0]


def test_lora_is_pefts():
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=["0"])
    ours, theirs, adapter, layer = pair(config, lambda shape: LoRA(shape, 3, 2.0, torch.Generator().manual_seed(2)))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert (a.shape, b.shape) == (adapter.A.shape, adapter.B.shape)
    bound = 12**-0.5
    assert a.abs().max() <= bound and adapter.A.abs().max() <= bound  # noqa: PT018
    assert torch.count_nonzero(b) == 0
    with torch.no_grad():
        b.normal_()
        adapter.A.copy_(a)
        adapter.B.copy_(b)
    torch.testing.assert_close(ours(X), theirs(X))


@pytest.mark.parametrize(("kind", "block", "weights"), [(Bone, 4, True), (Bone, 5, True), (Bat, 4, "bat")])
def test_bone_and_bat_are_pefts(kind, block, weights):
    config = peft.MissConfig(r=block, target_modules=["0"], init_weights=weights)
    ours, theirs, adapter, layer = pair(config, lambda shape: kind(shape, block))
    blocks = layer.miss_block["default"]
    assert blocks.shape == adapter.B.shape
    assert torch.count_nonzero(blocks) == 0
    with torch.no_grad():
        blocks.normal_(std=0.1)
        adapter.B.copy_(blocks)
    torch.testing.assert_close(ours(X), theirs(X))
    assert sum(p.numel() for p in adapter.parameters()) == blocks.numel()
