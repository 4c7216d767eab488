"""How well sentence embeddings agree with people on the similarity of sentences."""

from __future__ import annotations

import numpy as np

from harness.metrics.subject import Subject, named
from harness.params import Dataset
from harness.registry import metric
from harness.scores import Scores

VERSION = 1


@metric(bounds=(-1, 1))
def sts_spearman(subject: Subject, *, dataset: Dataset = "stsb", split: str = "test") -> Scores:
    """Spearman correlation of cosine similarities with human scores, for pairs of sentences (Cer et al. 2017).

    An item is a pair; its value is the cosine of the two embeddings, its target the human score.
    """
    from harness.models.encoder import encode

    subject.require("encoder", "sts_spearman")
    data = subject.data(dataset, split)
    count = subject.count(data)
    first, second, gold = (data.column(name)[:count] for name in ("sentence1", "sentence2", "label"))
    sentences = list(dict.fromkeys([*first, *second]))
    where = {sentence: i for i, sentence in enumerate(sentences)}
    vectors = encode(subject.model, subject.tokenizer, sentences).double().numpy()
    left, right = (vectors[[where[sentence] for sentence in side]] for side in (first, second))
    return Scores(
        ids=data.ids()[:count],
        values=np.einsum("nd,nd->n", left, right),
        signature=f"sts_spearman|{named(data, count)}|pool:mean|tok:{subject.tokenizer_hash[:12]}|v:{VERSION}",
        summary="spearman",
        unit="correlation",
        higher_is_better=True,
        targets=np.array(gold),
    )
