"""BLEU: sacreBLEU's score, its sentences as items, and what is generated."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU
from torch import nn

from harness.errors import BadInput
from harness.metrics import bleu
from harness.metrics.generation import greedy
from harness.metrics.subject import Subject
from harness.stats.resample import units, variance
from harness.tasks import make_task
from tests.metrics_samples import subject, tokenizer, with_data

WORDS = ["a", "the", "dog", "cat", "man", "sits", "runs", "on", "in", "garden", ",", "and", "big", "small", "sees"]


def corpus(count: int, wrong: float, seed: int = 0, shorter: float = 0.0) -> tuple[list[str], list[str]]:
    """Sentences of drawn words, and the same with some words drawn anew and some left out."""
    rng = np.random.default_rng(seed)
    references = [[WORDS[at] for at in rng.integers(len(WORDS), size=rng.integers(6, 20))] for _ in range(count)]
    found = [
        [WORDS[rng.integers(len(WORDS))] if rng.random() < wrong else word for word in one if rng.random() >= shorter]
        for one in references
    ]
    return [" ".join(one) for one in found], [" ".join(one) for one in references]


@pytest.mark.parametrize("shorter", [0.0, 0.2])
@pytest.mark.parametrize("tokenize", ["13a", "none", "char"])
def test_the_mean_over_sentences_is_sacrebleus_corpus_score(tokenize, shorter):
    hypotheses, references = corpus(50, 0.2, shorter=shorter)
    values, told, protocol = bleu.corpus_bleu(hypotheses, references, tokenize)
    theirs = BLEU(tokenize=tokenize)
    score = theirs.corpus_score(hypotheses, [references])
    assert values.mean() == pytest.approx(score.score, rel=1e-12)
    assert told["brevity_penalty"] == score.bp
    assert protocol == str(theirs.get_signature())


@pytest.mark.parametrize("shorter", [0.0, 0.2])
def test_a_sentences_value_is_what_weighing_it_more_does_to_the_corpus(shorter):
    hypotheses, references = corpus(40, 0.2, seed=1, shorter=shorter)
    values, _, _ = bleu.corpus_bleu(hypotheses, references)
    parts = [BLEU(effective_order=True).sentence_score(h, [r]) for h, r in zip(hypotheses, references, strict=True)]
    rows = np.array([[p.sys_len, p.ref_len, *p.counts, *p.totals] for p in parts], dtype=float)

    def score(weights):
        s = weights @ rows
        return 100 * np.exp(min(0, 1 - s[1] / s[0]) + np.log(s[2:6] / s[6:]).mean())

    for at in range(5):
        step = np.zeros(40)
        step[at] = 1e-6
        slope = (score(1 + step) - score(1 - step)) / 2e-6
        assert values[at] - values.mean() == pytest.approx(40 * slope, rel=1e-5, abs=1e-6)


def test_its_standard_error_is_that_of_resampled_corpora():
    hypotheses, references = corpus(200, 0.3, seed=2, shorter=0.1)
    values, _, _ = bleu.corpus_bleu(hypotheses, references)
    rng = np.random.default_rng(0)
    parts = [BLEU(effective_order=True).sentence_score(h, [r]) for h, r in zip(hypotheses, references, strict=True)]
    rows = np.array([[p.sys_len, p.ref_len, *p.counts, *p.totals] for p in parts])
    scores = []
    for _ in range(2000):
        s = rows[rng.integers(200, size=200)].sum(0).tolist()
        scores.append(BLEU.compute_bleu(s[2:6], s[6:], s[0], s[1], smooth_method="exp").score)
    error = variance(units(values[None], None, None))[0] ** 0.5
    assert error == pytest.approx(np.std(scores), rel=0.05)


def test_no_match_scores_nothing_and_an_order_without_one_is_smoothed():
    values, _, _ = bleu.corpus_bleu(["x y z w v"] * 2, ["a b c d e"] * 2)
    assert values.tolist() == [0, 0]
    hypotheses, references = ["a b c x y z", "a b q r s t"], ["a b c d e f", "a b g h i j"]
    values, _, _ = bleu.corpus_bleu(hypotheses, references)
    expected = BLEU().corpus_score(hypotheses, [references]).score
    assert values.mean() == pytest.approx(expected) != 0


class Next(nn.Module):
    """A model whose next token is the last one plus one."""

    def __init__(self, vocabulary: int = 40):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(vocab_size=vocabulary, max_position_embeddings=64)

    def forward(self, input_ids, **_):
        following = (input_ids + 1) % self.config.vocab_size
        return SimpleNamespace(logits=nn.functional.one_hot(following, self.config.vocab_size).float())


def test_greedy_takes_the_likeliest_token_until_one_that_ends():
    counting = Subject(Next(), "causal-lm")
    assert greedy(counting, [[3], [1, 7], [5]], 3) == [[4, 5, 6], [8, 9, 10], [6, 7, 8]]
    assert greedy(counting, [[3], [5]], 4, lambda token: token == 6) == [[4, 5, 6], [6]]
    with pytest.raises(BadInput, match="a prompt of 2 tokens and 63 new ones do not fit the model, which takes 64"):
        greedy(counting, [[1, 2]], 63)
    with pytest.raises(BadInput, match="a prompt has no tokens"):
        greedy(counting, [[]], 3)


def test_translations_are_scored_as_sacrebleu_scores_them(monkeypatch):
    hypotheses, references = corpus(12, 0.2, seed=3)
    given = with_data(subject(), {"de": [f"satz {at}" for at in range(12)], "en": references})
    prompts = []

    def canned(subject, asked, new_tokens, ends):
        prompts.extend(tokenizer().decode(ids, skip_special_tokens=True) for ids in asked)
        return [tokenizer()(text + "\nmore", add_special_tokens=False)["input_ids"] for text in hypotheses]

    monkeypatch.setattr(bleu, "greedy", canned)
    scores = bleu.translation_bleu(given, dataset="any", source="de", reference="en", prompt="{source} =")
    assert prompts[3] == "satz 3 ="
    assert scores.value == pytest.approx(BLEU().corpus_score(hypotheses, [references]).score)
    assert "|de-en|" in scores.signature
    assert "|tok:13a|" in scores.signature


def test_a_model_translates_and_what_cannot_be_is_refused():
    given = with_data(subject(limit=2), {"de": ["ein hund", "eine katze", "ein haus"], "en": ["a dog", "a cat", "x"]})
    scores = bleu.translation_bleu(given, dataset="any", source="de", reference="en", new_tokens=4)
    assert len(scores.ids) == 2
    with pytest.raises(BadInput, match=r"prompt='x' is not accepted; it takes a text with \{source\} in it"):
        bleu.translation_bleu(given, dataset="any", source="de", reference="en", prompt="x")
    with pytest.raises(BadInput, match="has no column 'fr'"):
        bleu.translation_bleu(given, dataset="any", source="de", reference="fr")


def test_a_window_is_continued_and_set_against_how_it_goes_on():
    spec = {"dataset": "synthetic-lm", "tokenizer": "synthetic-lm", "length": 16, "train": 8, "dev": 4, "test": 6}
    task = make_task(spec, torch.Generator().manual_seed(0))
    model = Next(task.classes)
    scores = bleu.continuation_bleu(Subject(model, "causal-lm", tasks={task.name: task}), prompt=0.5)
    last = task.test.inputs[:, 7]
    made = [" ".join(str((int(token) + at) % task.classes) for at in range(1, 9)) for token in last]
    wanted = [" ".join(map(str, row)) for row in task.test.inputs[:, 8:].tolist()]
    assert scores.value == pytest.approx(BLEU(tokenize="none").corpus_score(made, [wanted]).score)
    assert scores.blocks is not None
    with pytest.raises(BadInput, match=r"prompt=0\.9 leaves 2 of 16 tokens; it takes 4 or more"):
        bleu.continuation_bleu(Subject(model, "causal-lm", tasks={task.name: task}), prompt=0.9)


def test_images_are_not_continued():
    task = make_task({"dataset": "digits", "train": 8, "dev": 4, "test": 6}, torch.Generator().manual_seed(0))
    with pytest.raises(BadInput, match="metric continuation_bleu is for text; task digits is of kind vision"):
        bleu.continuation_bleu(Subject(Next(), "vision", tasks={task.name: task}))
