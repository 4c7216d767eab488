"""Loss above the floor of a generated language."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from metrics_samples import Unigram, subject, with_data

from harness import data_synthetic
from harness.errors import BadInput
from harness.metrics.floor import loss_above_floor


def test_a_uniform_model_on_a_known_language():
    """log V less the floor, for each text."""
    floor = [0.5, 0.25, 1.0]
    sample = with_data(
        subject(Unigram(torch.zeros(16))), {"input_ids": [[1, 2, 3], [4, 5, 6], [7, 8, 9]], "floor": floor}
    )
    scores = loss_above_floor(sample)
    assert np.allclose(scores.values, np.log(16) - np.array(floor))
    assert scores.extra["loss"] == pytest.approx(np.log(16))
    assert scores.extra["floor"] == pytest.approx(np.mean(floor))
    assert scores.summary == "mean"


class Oracle(Unigram):
    """The language's own probabilities."""

    def forward(self, input_ids, **_):
        words = np.arange(len(data_synthetic.words()))
        known = input_ids.numpy()
        logits = np.empty((*known.shape, len(words)))
        for row, place in np.ndindex(known.shape):
            texts = np.concatenate((np.tile(known[row, : place + 1], (len(words), 1)), words[:, None]), axis=1)
            logits[row, place] = data_synthetic.log_probabilities(texts)[:, -1]
        out = super().forward(input_ids)
        out.logits = torch.from_numpy(logits)
        return out


def test_the_language_itself_is_at_its_floor():
    oracle = Oracle(torch.zeros(len(data_synthetic.words())))
    sample = subject(oracle, limit=2)
    tokens, _ = data_synthetic.generate(3, 24, seed=5)
    floor = -data_synthetic.log_probabilities(tokens)[:, 1:].mean(axis=1)
    scores = loss_above_floor(with_data(sample, {"input_ids": tokens.tolist(), "floor": floor.tolist()}))
    assert len(scores.ids) == 2
    assert "|items:2|" in scores.signature
    assert np.abs(scores.values).max() < 1e-5


def test_words_that_the_model_does_not_have_are_refused():
    sample = with_data(subject(Unigram(torch.zeros(4))), {"input_ids": [[1, 9]], "floor": [0.0]})
    with pytest.raises(BadInput, match="has token 9; the model knows 4 tokens"):
        loss_above_floor(sample)


def test_other_data_is_refused():
    with pytest.raises(BadInput, match="has no column 'input_ids'"):
        loss_above_floor(with_data(subject(), {"text": ["a"]}))
