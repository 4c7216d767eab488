"""Decoding with a model put together from stored formats: what is built, what a turn is, what a trial measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from harness.engine.plan import plan_suite
from harness.engine.suite import load_suite
from harness.engine.trial import run_trial
from harness.errors import BadInput
from harness.latency import ceilings, linear, lm, measure, shapes, weights
from harness.packed import CompressedLinear
from harness.tracks import latency as track

TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 64}  # fmt: skip
SUITE = """\
suite: tiny
title: A tiny model
track: latency
problems:
  - {model: llama-tiny, measure: token, layers: 2, rounds: 6, prompt: 5, tokens: 3}
methods: [floating(dtype=bfloat16), "uniform(bits=4, kernel=reference)"]
metrics: [decode_rate, speedup, speedup(phase=first), of_limit, first_token_time, run_memory]
baseline: floating(dtype=bfloat16)
"""


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "llama-tiny", TINY)
    monkeypatch.setattr(ceilings, "CPU_BYTES", 1 << 20)
    monkeypatch.setattr(ceilings, "CPU_WIDTH", 16)
    for cached in (ceilings.measured, ceilings._buffer):
        cached.cache_clear()
    yield
    for cached in (ceilings.measured, ceilings._buffer):
        cached.cache_clear()


def generator():
    return torch.Generator().manual_seed(0)


def make(m: int, n: int) -> CompressedLinear:
    """Weights of a scale at which activations stay of the order of one."""
    dense = weights.dense(m, n, generator(), dtype=torch.float32)
    return CompressedLinear(type(dense)(dense.weight * 0.1), kernel="reference")


def build(layers: int | None = None) -> nn.Module:
    return lm.build("llama-tiny", layers, make, generator(), "cpu")


def test_every_layer_of_the_blocks_is_made_and_nothing_is_left_on_meta():
    model = build()
    asked = [name for name, module in model.named_modules() if isinstance(module, CompressedLinear)]
    assert len(asked) == 3 * 7 + 1
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    floats = [parameter for parameter in model.parameters() if parameter.dtype == torch.float32]
    assert all(parameter.ndim == 1 for parameter in floats)  # norms


def test_layers_cuts_the_model():
    assert len(lm.compressed(build(2))) == 2 * 7 + 1
    with pytest.raises(BadInput, match="layers=4 is not accepted; the model has 3"):
        build(4)


def test_a_turn_decodes_greedily_with_the_keys_and_values_kept():
    """The tokens are those of the whole sequence computed anew each time; times are the calls' own."""
    model = build()
    prompt = lm.prompt_of(model, 2, 5, generator(), "cpu")
    seen = []

    def hook(module, args, kwargs, output):
        seen.append((kwargs["input_ids"].shape[1], output.logits[:, -1].argmax(-1)))

    model.register_forward_hook(hook, with_kwargs=True)
    seconds = iter([9.0, 1.0, 5.0, 2.0])

    def fake(call) -> float:
        call()
        return next(seconds)

    assert lm.Decoding(model, prompt, 3, fake)() == {"first": 9.0, "token": 2.0}
    lengths, tokens = zip(*seen, strict=True)
    assert lengths == (5, 1, 1, 1)
    whole = prompt
    for token in tokens:
        with torch.no_grad():
            wanted = model(input_ids=whole, use_cache=False).logits[:, -1].argmax(-1)
        assert torch.equal(token, wanted)
        whole = torch.cat([whole, token[:, None]], 1)


def test_tied_embeddings_are_stored_once():
    model = lm.build("tiny-llama", 1, make, generator(), "cpu")
    head = model.get_output_embeddings()
    table = model.get_input_embeddings().weight
    tied = model.config.tie_word_embeddings
    assert (head.weight.packed.weight.data_ptr() == table.data_ptr()) == tied
    stored = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    assert lm.tensor_bytes(model) == stored - (table.nbytes if tied else 0)


def test_what_cannot_decode_is_refused():
    with pytest.raises(BadInput, match="model='digits-vit' is not accepted; it takes a causal language model"):
        lm.build("digits-vit", None, make, generator(), "cpu")
    with pytest.raises(BadInput, match="prompt=65 is not accepted; the model has 64 positions"):
        lm.prompt_of(build(1), 1, 65, generator(), "cpu")


def test_a_trial_measures_tokens_the_first_token_and_memory(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE)
    for trial in plan_suite(load_suite(path)):
        outcome = run_trial(trial)
        record = outcome.record
        assert record.status == "ok", record.traceback
        assert set(record.log["rounds"]["method"]) == {"first", "token"}
        value = {label: one["value"] for label, one in record.metrics.items()}
        assert value["decode_rate"] == pytest.approx(
            np.median(1 / np.median(record.log["rounds"]["method"]["token"], axis=1))
        )
        assert value["first_token_time"] == pytest.approx(
            1e3 * np.median(np.median(record.log["rounds"]["method"]["first"], axis=1))
        )
        assert record.metrics["decode_rate"]["extra"]["limit"] > 0
        assert value["run_memory"] >= 0
        assert "layers:2|prompt:5|tokens:3" in record.metrics["speedup"]["signature"]
    assert record.size["bits_per_weight"] == pytest.approx(4.3, abs=0.3)
    assert record.log["kernel"] == "torch reference"


def test_the_limit_is_reading_every_weight_once_the_head_too():
    spec = {"model": "llama-tiny", "measure": "token", "prompt": 4, "tokens": 2, "rounds": 6, "baseline": "floating"}
    problem = track.build(spec, seed=0)
    pair = measure._decoding(problem, make)
    body = 3 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128)
    assert pair.stored == 4 * body + 2 * 96 * 64
    assert pair.operations == 2 * (body + 96 * 64)
    assert linear.least_seconds(pair.stored, 0, np.full((6, 2), 1e9), 0)[0] == pair.stored / 1e9


def test_memory_that_cannot_be_told_is_missing(monkeypatch):
    spec = {"model": "llama-tiny", "measure": "token", "prompt": 4, "tokens": 2, "baseline": "floating"}
    problem = track.build(spec, seed=0)
    monkeypatch.setattr(measure, "reset_peak", lambda: False)
    assert measure._decoding(problem, make).memory is None
