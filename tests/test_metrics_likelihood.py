"""Log-likelihoods of packed batches against one plain forward pass a sequence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from metrics_samples import Unigram, llama, subject

from harness.metrics.likelihood import batches, log_likelihoods

VOCABULARY = 97


def sequences(count: int = 60, seed: int = 0) -> tuple[list[np.ndarray], list[int]]:
    """Random sequences of which many begin alike."""
    rng = np.random.default_rng(seed)
    trunks = [rng.integers(0, VOCABULARY, 20) for _ in range(5)]
    found, scored = [], []
    for _ in range(count):
        start = trunks[rng.integers(5)][: rng.integers(1, 21)]
        tokens = np.concatenate((start, rng.integers(0, 5, rng.integers(1, 8)))).astype(np.int32)
        found.append(tokens)
        scored.append(int(rng.integers(1, len(tokens))))
    return found, scored


def plain(model: torch.nn.Module, tokens: np.ndarray, scored: int) -> tuple[float, bool]:
    ids = torch.from_numpy(tokens.astype(np.int64))
    with torch.no_grad():
        logs = model(input_ids=ids[None]).logits[0, :-1].double().log_softmax(-1)
    values = logs.gather(1, ids[1:, None])[-scored:, 0]
    return float(values.sum()), bool((logs.argmax(-1) == ids[1:])[-scored:].all())


def compare(model: torch.nn.Module, **options) -> tuple[float, float]:
    """(largest difference from the plain way, tokens run for each token of the plain way)."""
    tokens, scored = sequences()
    sample = subject(model)
    values, greedy = log_likelihoods(sample, tokens, scored, **options)
    expected = [plain(model, *pair) for pair in zip(tokens, scored, strict=True)]
    assert greedy.tolist() == [best for _, best in expected]
    run = sum(batch.tokens.size for batch in batches(sample, tokens, scored, **options))
    return float(np.abs(values - [value for value, _ in expected]).max()), run / sum(len(t) - 1 for t in tokens)


@pytest.mark.parametrize("budget", [1, 32, 256, None])
def test_equal_to_one_forward_pass_a_sequence_whatever_the_batch(budget):
    difference, work = compare(llama(), budget=budget)
    assert difference < 1e-4
    assert budget or work < 0.6


SMALL = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64}
HEADS = {"num_attention_heads": 4}
GROUPED = {**HEADS, "num_key_value_heads": 2}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.mark.parametrize(
    ("config", "shares"),
    [
        (transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, **TOKENS), True),
        (transformers.OPTConfig(**SMALL, **HEADS, word_embed_proj_dim=32, ffn_dim=64, **TOKENS), True),
        (transformers.GPTNeoXConfig(**SMALL, **HEADS, **TOKENS), True),
        (transformers.Qwen3Config(**SMALL, **GROUPED, head_dim=8, **TOKENS), True),
        (transformers.Gemma2Config(**SMALL, **GROUPED, head_dim=8, final_logit_softcapping=5.0, **TOKENS), True),
        (transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, **TOKENS), False),
        (transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, **TOKENS), False),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)  # fmt: skip
def test_a_model_shares_beginnings_only_if_it_can(config, shares):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    difference, work = compare(model)
    assert difference < 1e-4
    assert (work < 0.6) == shares


def test_a_short_attention_window_is_respected():
    config = transformers.MistralConfig(**SMALL, **GROUPED, sliding_window=10, initializer_range=0.3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    difference, work = compare(model)
    assert difference < 1e-4
    assert work > 0.9


def test_a_small_vocabulary_chunk_changes_nothing(monkeypatch):
    tokens, scored = sequences()
    whole, _ = log_likelihoods(subject(), tokens, scored)
    monkeypatch.setattr("harness.metrics.likelihood.CHUNK", 7 * 300)
    parts, _ = log_likelihoods(subject(), tokens, scored)
    assert np.allclose(whole, parts, rtol=0, atol=1e-5)


def test_only_the_positions_kept_reach_the_output_layer():
    ids = torch.arange(24).reshape(2, 12)
    keep = torch.tensor([0, 5, 17])
    sample, rows = subject(), []
    hook = sample.model.lm_head.register_forward_hook(lambda *call: rows.append(call[1][0].shape[0]))
    kept = sample.logits({"input_ids": ids}, keep)
    hook.remove()
    assert rows == [3]
    assert torch.allclose(kept, sample.logits({"input_ids": ids}).flatten(0, 1)[keep], atol=1e-5)
    assert not sample.model.lm_head._forward_pre_hooks


def test_a_streamed_model_stands_in_for_the_model():
    tokens, scored = sequences(5)
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0))
    asked = []

    def forward(batch, keep):
        asked.append(tuple(batch["input_ids"].shape))
        return logits.expand(len(keep), -1)

    streamed = subject(llama(), forward=forward, shares_prefixes=False)
    expected, _ = log_likelihoods(subject(Unigram(logits)), tokens, scored)
    assert np.allclose(log_likelihoods(streamed, tokens, scored)[0], expected, rtol=0, atol=1e-6)
    assert asked


def test_nothing_to_score_runs_nothing():
    values, greedy = log_likelihoods(subject(), [], [])
    assert values.shape == greedy.shape == (0,)
