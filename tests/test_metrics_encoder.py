"""Spearman correlation of sentence similarities."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from metrics_samples import with_data
from scipy.stats import spearmanr
from torch import nn

from harness.metrics.encoder import sts_spearman
from harness.metrics.subject import Subject

SENTENCES = {"east": [1.0, 0.0], "north": [0.0, 2.0], "north-east": [3.0, 3.0], "west": [-1.0, 0.0]}


class Encoder(nn.Module):
    """The last hidden state of a one-token sentence is its vector above."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(list(SENTENCES.values())))
        self.asked = 0

    def forward(self, input_ids, attention_mask):
        self.asked += len(input_ids)
        return SimpleNamespace(last_hidden_state=self.table[input_ids])


class Batch(dict):
    def to(self, device):
        return self


def tokenize(texts, **_):
    ids = torch.tensor([[list(SENTENCES).index(text)] for text in texts])
    return Batch(input_ids=ids, attention_mask=torch.ones_like(ids))


def sample(**fields):
    source = SimpleNamespace(tokenizer=tokenize, tokenizer_hash="7" * 64)
    pairs = {
        "sentence1": ["east", "east", "east", "north"],
        "sentence2": ["east", "north-east", "west", "east"],
        "label": [5.0, 2.5, 0.0, 3.0],
    }
    return with_data(Subject(Encoder(), "encoder", source, **fields), pairs)


def test_cosine_of_each_pair_and_their_rank_correlation():
    scores = sts_spearman(sample(), dataset="any")
    assert np.allclose(scores.values, [1.0, np.sqrt(0.5), -1.0, 0.0], atol=1e-6)
    assert scores.targets.tolist() == [5.0, 2.5, 0.0, 3.0]
    assert scores.value == pytest.approx(spearmanr(scores.values, scores.targets).statistic)
    assert scores.value == pytest.approx(0.8)


def test_a_sentence_is_encoded_once():
    subject = sample()
    sts_spearman(subject, dataset="any")
    assert subject.model.asked == 4


def test_a_limit_keeps_the_first_pairs():
    scores = sts_spearman(sample(limit=3), dataset="any")
    assert len(scores.ids) == 3
    assert "|items:3|" in scores.signature
