"""Perplexity: windows, units, and cases that can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from metrics_samples import Unigram, llama, subject, tokenizer, with_data

from harness.errors import BadInput
from harness.metrics.perplexity import BLOCK, cut, perplexity, spread

TEXTS = ["the cat sat on the mat and the dog saw it. " * 3, "nobody sits there", "", "cats! " * 20]


def unigram(**options):
    """A model that ignores its context, with the documents above."""
    logits = torch.randn(len(tokenizer()), generator=torch.Generator().manual_seed(1))
    return with_data(subject(Unigram(logits), **options), {"text": TEXTS})


def uniform(texts=TEXTS, **source):
    return with_data(subject(Unigram(torch.zeros(len(tokenizer())))), {"text": texts}, **source)


def ids(text: str) -> list[int]:
    return tokenizer()(text, add_special_tokens=False)["input_ids"]


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 20), st.integers(0, 1))
def test_every_token_is_scored_once_by_a_window_of_the_context(length, context, stride, first):
    stride = min(stride, context)
    scored = []
    for start, begin, stop in cut(length, context, stride, first):
        assert start <= begin < stop <= start + context
        assert start % stride == 0
        scored += range(begin, stop)
    assert scored == list(range(first, length))


def test_later_windows_have_the_most_context():
    """Where windows overlap, what a window adds is its last `stride` tokens."""
    assert [stop - first for _, first, stop in cut(100, context=20, stride=5)] == [20] + [5] * 16


@pytest.mark.parametrize("unit", ["token", "word", "byte"])
@pytest.mark.parametrize("join", ["none", "rows", "paragraphs"])
def test_a_uniform_model(unit, join):
    """Perplexity of a token is the vocabulary's size V; of a word, V to the power of tokens per word."""
    texts = {"none": TEXTS, "rows": ["".join(TEXTS)], "paragraphs": ["\n\n".join(TEXTS)]}[join]
    tokens = sum(len(ids(text)) for text in texts)
    size = {
        "token": tokens,
        "word": sum(len(text.split()) for text in texts),
        "byte": sum(len(text.encode()) for text in texts),
    }[unit]
    scores = perplexity(uniform(), dataset="any", context=16, unit=unit, join=join)
    assert scores.weights.sum() == pytest.approx(size)
    assert scores.value == pytest.approx(len(tokenizer()) ** (tokens / size), rel=1e-5)
    assert not scores.higher_is_better


def test_the_logarithm():
    scores = perplexity(uniform(), dataset="any", context=16, log=True)
    assert scores.value == pytest.approx(math.log(len(tokenizer())), rel=1e-6)
    assert scores.signature.startswith("nll|")


@pytest.mark.parametrize("bos", [True, False])
def test_a_model_that_ignores_context_gives_the_same_total_for_every_window(bos):
    totals = []
    for context, stride in [(8, 8), (8, 3), (16, 5), (32, 1)]:
        scores = perplexity(unigram(), dataset="any", context=context, stride=stride, bos=bos)
        totals.append((scores.values * scores.weights).sum())
    assert np.ptp(totals) < 1e-4
    logs = unigram().model.logits.log_softmax(0)
    expected = -sum(logs[token].item() for text in TEXTS for token in ids(text)[0 if bos else 1 :])
    assert totals[0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("context", "stride", "bos"), [(16, None, True), (16, 4, True), (16, 4, False)])
def test_equal_to_reading_each_token_with_its_context(context, stride, bos):
    sample = with_data(subject(), {"text": TEXTS})
    scores = perplexity(sample, dataset="any", context=context, stride=stride, bos=bos)
    total = 0.0
    for text in TEXTS:
        tokens = ids(text)
        for start, first, stop in cut(len(tokens), context, stride or context, 0 if bos else 1):
            before = [0] if bos else tokens[max(0, start - 1) : start]
            window = torch.tensor([before + tokens[start:stop]])
            assert window.shape[1] - 1 <= context
            with torch.no_grad():
                logs = llama()(input_ids=window).logits[0, :-1].log_softmax(-1)
            total -= logs.gather(1, window[0, 1:, None])[first - stop :].sum().item()
    tokens = sum(len(ids(text)) - (0 if bos or not text else 1) for text in TEXTS)
    assert scores.weights.sum() == tokens
    assert scores.value == pytest.approx(math.exp(total / tokens), rel=1e-5)


def test_the_stride_matters_to_a_model_that_reads_its_context():
    sample = with_data(subject(), {"text": TEXTS})
    values = {perplexity(sample, dataset="any", context=16, stride=stride).value for stride in (1, 16)}
    assert len(values) == 2


def test_items_are_windows_and_blocks_are_documents():
    scores = perplexity(uniform(), dataset="any", context=16)
    assert scores.ids[:2] == ["test:0:0", "test:0:16"]
    assert set(scores.blocks) == {"test:0", "test:1", "test:3"}  # the third document is empty
    assert all(name.startswith(block) for name, block in zip(scores.ids, scores.blocks, strict=True))


def test_blocks_of_a_joined_text_are_stretches_of_it():
    scores = perplexity(uniform(["a"] * 2 * BLOCK), dataset="any", context=64, join="rows")
    assert set(scores.blocks) == {"test:0", f"test:{BLOCK}"}
    assert scores.blocks.count("test:0") == BLOCK // 64


@pytest.mark.parametrize(("id", "join"), [("Salesforce/wikitext", "rows"), ("local/open_english_text", "none")])
def test_how_documents_are_joined_depends_on_the_data(id, join):
    assert f"|join:{join}|" in perplexity(uniform(id=id), dataset="any", context=8).signature


def test_the_signature_fixes_the_protocol():
    sample = uniform(["the cat sat on the mat " * 8])
    expected = "perplexity|sample:test@dddddddddddd|join:none|ctx:16|stride:8|unit:word|bos:0|tok:777777777777|v:1"
    assert perplexity(sample, dataset="any", context=16, stride=8, unit="word", bos=False).signature == expected
    assert "|windows:3|" in perplexity(sample, dataset="any", context=16, windows=3).signature


@given(st.integers(0, 50), st.integers(1, 60))
def test_a_limit_takes_items_from_everywhere(count, limit):
    chosen = spread(list(range(count)), limit, None)
    assert len(chosen) == min(count, limit)
    assert (np.diff(chosen) >= count // limit).all()


def test_windows_and_limit_keep_the_fewer_and_name_the_same_items():
    every = perplexity(uniform(), dataset="any", context=4)
    some = perplexity(uniform(), dataset="any", context=4, windows=5)
    assert len(some.ids) == 5
    assert set(some.ids) < set(every.ids)
    limited = uniform()
    limited.limit = 3
    assert len(perplexity(limited, dataset="any", context=4, windows=5).ids) == 3


def test_a_tokenizer_without_a_beginning_token_uses_its_end():
    sample = with_data(subject(bos=False), {"text": TEXTS})
    with_end = perplexity(sample, dataset="any", context=16)
    assert with_end.value != perplexity(with_data(subject(), {"text": TEXTS}), dataset="any", context=16).value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 100}, "sample:test is shorter than the context: its longest text has .* context=100"),
        ({"context": 8, "stride": 9}, "stride=9 leaves out text; it takes at most the context, 8"),
    ],
)
def test_refused(options, message):
    with pytest.raises(BadInput, match=message):
        perplexity(uniform(), dataset="any", **options)


def test_a_context_longer_than_the_model_is_refused():
    sample = with_data(subject(), {"text": TEXTS})
    with pytest.raises(BadInput, match="context=129 is longer than sample's, 128 tokens"):
        perplexity(sample, dataset="any", context=129)
    sample.kind = "vision"
    with pytest.raises(BadInput, match="is for a model of kind causal-lm; sample is of kind vision"):
        perplexity(sample, dataset="any", context=16)


def test_the_default_context_is_refused_by_a_shorter_text():
    with pytest.raises(BadInput, match="context=512; it takes a context of at most"):
        perplexity(uniform(), dataset="any")
