"""Packed weights inside models: the same outputs as the dequantized weight gives, whatever the layer."""

from __future__ import annotations

import copy

import pytest
import torch
from packed_samples import every_kind, generator, matrix, quantized
from torch import nn

from harness.errors import BadInput
from harness.packed import CompressedLinear, Dense, LowRank, Rows, dense_weights, replace_layers

KINDS = sorted(every_kind(0, 2, 5))


def of_shape(kind: str, m: int, n: int):
    """A weight of that kind with m rows; every sample but one has as many as it was asked for."""
    weight = every_kind(5, m // 3 if kind == "rows" else m, n)[kind]
    assert weight.shape == (m, n)
    return weight


def both(model: nn.Module, packed, x, changed=None):
    ordinary = dense_weights(copy.deepcopy(model), packed, changed)(x)
    return ordinary, replace_layers(copy.deepcopy(model), packed, changed)(x)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_linear(kind, bias):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 6, bias=bias), nn.ReLU())
    weight = of_shape(kind, 6, 10)
    x = torch.randn(2, 3, 10)
    ordinary, compressed = both(model, {"0": weight}, x)
    torch.testing.assert_close(ordinary, (x @ weight.dequantize().T + (model[0].bias if bias else 0)).relu())
    torch.testing.assert_close(compressed, ordinary)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
        {"padding": "same", "bias": False},
        {"padding": 2, "padding_mode": "reflect"},
        {"groups": 2, "padding": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_convolution(kind, options):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, (3, 2), **options)
    weight = of_shape(kind, 6, layer.weight[0].numel())
    x = torch.randn(2, 4, 9, 8)
    kernel = weight.dequantize().view_as(layer.weight)
    expected = layer._conv_forward(x, kernel, layer.bias)
    ordinary, compressed = both(nn.Sequential(layer), {"0": weight}, x)
    torch.testing.assert_close(ordinary, expected)
    torch.testing.assert_close(compressed, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_grouped_convolution_from_its_groups():
    layer = nn.Conv2d(4, 6, 3, groups=2, bias=False)
    parts = [quantized(generator(i), 3, 18, bits=2 + i)[0] for i in range(2)]
    x = torch.randn(1, 4, 5, 5, generator=generator())
    halves = [
        nn.functional.conv2d(x[:, 2 * i : 2 * i + 2], part.dequantize().view(3, 2, 3, 3))
        for i, part in enumerate(parts)
    ]
    _, compressed = both(nn.Sequential(layer), {"0": Rows(parts)}, x)
    torch.testing.assert_close(compressed, torch.cat(halves, 1))


@torch.no_grad()
def test_transposed_layers_of_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=20, n_positions=8)).eval()
    packed = {"transformer.h.0.attn.c_attn": of_shape("uniform", 24, 8), "lm_head": of_shape("uniform", 20, 8)}
    before = model.transformer.wte.weight.clone()
    dense = dense_weights(copy.deepcopy(model), packed)
    compressed = replace_layers(copy.deepcopy(model), packed)
    assert torch.equal(dense.transformer.h[0].attn.c_attn.weight, packed["transformer.h.0.attn.c_attn"].dequantize().T)
    assert torch.equal(dense.transformer.wte.weight, before), "the head was tied to the embedding"
    tokens = torch.arange(6)[None]
    torch.testing.assert_close(compressed(tokens).logits, dense(tokens).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_casting_moves_but_keeps_the_stored_format(kind):
    weight = every_kind(0, 6, 8)[kind]
    layer = CompressedLinear(weight, torch.zeros(weight.shape[0])).to(torch.float64)
    assert layer.bias.dtype == torch.float64
    assert {name: t.dtype for name, t in layer.weight.packed.tensors().items()} == {
        name: t.dtype for name, t in weight.tensors().items()
    }
    assert layer(torch.ones(2, 8, dtype=torch.float64)).dtype == torch.float64
    assert all(tensor.is_meta for tensor in layer.to("meta").state_dict().values())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_state_dict(kind):
    one, two = every_kind(1, 6, 8)[kind], every_kind(1, 6, 8)[kind]
    source = CompressedLinear(one, torch.ones(one.shape[0]))
    target = CompressedLinear(two, torch.zeros(one.shape[0]))
    for tensor in target.state_dict().values():
        tensor.zero_()
    x = torch.randn(3, 8, generator=generator())
    assert {name.removeprefix("weight.") for name in source.state_dict()} == {*one.tensors(), "bias"}
    target.load_state_dict(source.state_dict())
    assert torch.equal(target(x), source(x))
    assert torch.equal(copy.deepcopy(source)(x), source(x))


@torch.no_grad()
def test_the_layer_uses_its_buffers_as_they_are_now():
    layer = CompressedLinear(Dense(torch.ones(1, 2)))
    assert layer(torch.ones(2)).item() == 2
    layer.load_state_dict({"weight.weight": torch.full((1, 2), 3.0)}, assign=True)
    assert layer(torch.ones(2)).item() == 6
    layer.weight.get_buffer("weight").fill_(5)
    assert layer(torch.ones(2)).item() == 10


@torch.no_grad()
def test_changed_tensors():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4)).eval()
    changed = {
        "0.bias": torch.full((4,), 2.0).bfloat16(),
        "1.weight": torch.full((4,), 3.0).half(),
        "1.running_mean": torch.ones(4).half(),
    }
    x = torch.randn(5, 4)
    packed = {"0": Dense(torch.eye(4))}
    ordinary, compressed = both(model, packed, x, changed)
    torch.testing.assert_close(ordinary, (x + 2 - 1) * 3, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(compressed, ordinary)
    assert model[0].bias is None
    assert dense_weights(copy.deepcopy(model), packed, changed)[1].weight.dtype == torch.float32


@pytest.mark.parametrize("put", [dense_weights, replace_layers])
@pytest.mark.parametrize(
    ("packed", "changed", "message"),
    [
        ({"fcc": Dense(torch.ones(3, 2))}, {}, "packed layer 'fcc' is not in the model; did you mean fc?"),
        ({"": Dense(torch.ones(3, 2))}, {}, "packed layer '' is not in the model"),
        ({"norm": Dense(torch.ones(3, 2))}, {}, "packed layer norm: LayerNorm cannot be compressed"),
        ({"fc": Dense(torch.ones(2, 3))}, {}, r"packed layer fc has shape \(2, 3\); the model's has \(3, 2\)"),
        ({}, {"fc.scale": torch.ones(3)}, "changed tensor fc.scale is not in the model"),
        ({}, {"fc.bias": torch.ones(4)}, r"changed tensor fc.bias has shape \(4,\); the model's has \(3,\)"),
    ],
)
def test_what_does_not_fit_the_model(put, packed, changed, message):
    model = nn.ModuleDict({"fc": nn.Linear(2, 3), "norm": nn.LayerNorm(3)})
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(BadInput, match=message):
        put(model, {"fc": Dense(torch.zeros(3, 2)), **packed}, {"fc.bias": torch.zeros(3), **changed})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@torch.no_grad()
def test_low_rank_runs_through_its_factors(monkeypatch):
    weight = LowRank(matrix(generator(), 6, 2), matrix(generator(), 2, 18))
    monkeypatch.setattr(LowRank, "dequantize", lambda self: pytest.fail("the product was formed"))
    replace_layers(nn.Sequential(nn.Conv2d(2, 6, 3)), {"0": weight})(torch.ones(1, 2, 4, 4))
    CompressedLinear(weight)(torch.ones(18))


def test_meta_model_takes_packed_weights():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 3, bias=False))
    replace_layers(model, {"0": Dense(torch.ones(3, 2))})
    assert model(torch.ones(2)).tolist() == [2.0] * 3
