"""Loss above the least possible, on a generated language whose probabilities are known."""

from __future__ import annotations

import numpy as np

from harness.errors import BadInput
from harness.metrics.likelihood import log_likelihoods
from harness.metrics.subject import Subject, named
from harness.params import Dataset
from harness.registry import metric
from harness.scores import Scores

VERSION = 1


@metric()
def loss_above_floor(subject: Subject, *, dataset: Dataset = "synthetic-lm", split: str = "test") -> Scores:
    """Nats per token above the language's own: the model's mean negative log-likelihood of a text, less the exact one.

    An item is a text; every token after its first is scored. The expected value is the Kullback-Leibler divergence of
    the model from the language, never negative; a single text may fall below zero. `extra` has the two losses. Raises
    BadInput for a data set without the columns `input_ids` and `floor`, or with words that the model does not have.
    """
    subject.require("causal-lm", "loss_above_floor")
    data = subject.data(dataset, split)
    count = subject.count(data)
    texts = [np.array(ids, dtype=np.int32) for ids in data.column("input_ids")[:count]]
    floor = np.array(data.column("floor")[:count])
    largest, known = max(int(text.max()) for text in texts), subject.vocabulary
    if 0 < known <= largest:
        raise BadInput(f"loss_above_floor: {data.source.title} has token {largest}; the model knows {known} tokens")
    scored = [len(text) - 1 for text in texts]
    likelihood, _ = log_likelihoods(subject, texts, scored)
    loss = -likelihood / scored
    return Scores(
        ids=data.ids()[:count],
        values=loss - floor,
        signature=f"loss_above_floor|{named(data, count)}|context:all|v:{VERSION}",
        unit="nats/token",
        weights=np.array(scored),
        extra={
            "loss": float(np.average(loss, weights=scored)),
            "floor": float(np.average(floor, weights=scored)),
        },
    )
