"""Corpus BLEU of generated text; sacreBLEU counts and scores, and its signature is part of ours.

BLEU is a function of sums over sentences: lengths, and matched and counted n-grams. It is no mean over sentences, but
its first order is: with B the corpus's score, S_k the sums, s_ik those of sentence i of N, and g_k = dB/dS_k,

    value_i = B + sum_k g_k (N s_ik - S_k),

whose mean over sentences is B exactly, and whose resampling is that of corpus BLEU to first order (the infinitesimal
jackknife, as for correlations in `harness.stats.correlation`). So a system's value for a sentence is what the sentence
does to the corpus's score, and may lie below 0 or above 100. Differences between systems are paired by sentence, as in
sacreBLEU's own significance tests, and the mean over seeds is that of corpus scores. A brevity penalty that just does
not apply is taken as one that does not. A corpus without a match scores 0, whatever is resampled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.errors import BadInput
from harness.metrics.generation import greedy
from harness.metrics.subject import Subject, named
from harness.metrics.tasks import chosen, first
from harness.metrics.tokens import encode
from harness.params import Count, Dataset, Fraction
from harness.registry import metric
from harness.scores import Scores

if TYPE_CHECKING:
    from harness.tasks import Task

VERSION = 1
ORDER = 4
Tokenize = Literal["13a", "intl", "char", "zh", "none"]


@metric(paper="post2018call")
def translation_bleu(
    subject: Subject,
    *,
    dataset: Dataset,
    source: str,
    reference: str,
    split: str = "test",
    prompt: str = "{source}\n",
    new_tokens: Count = 64,
    tokenize: Tokenize = "13a",
    sentences: Count | None = None,
) -> Scores:
    """Corpus BLEU of what a language model writes after `prompt`, against a column of the data set; by sentence.

    `source` and `reference` are columns of parallel text (`de` and `en` of multi30k); `{source}` in the prompt is the
    sentence. The likeliest token is taken each time; the answer ends with its line, the end of the sequence, or after
    `new_tokens`. `sentences` keeps the first so many. Raises BadInput for a column that is not there.
    """
    subject.require("causal-lm", "translation_bleu")
    if "{source}" not in prompt:
        raise BadInput(f"translation_bleu: prompt={prompt!r} is not accepted; it takes a text with {{source}} in it")
    data = subject.data(dataset, split)
    for column in (source, reference):
        if column not in data.columns:
            raise BadInput(f"translation_bleu: {data.source.title} has no column {column!r}; it has {data.columns}")
    count = min(subject.count(data), sentences or len(data))
    texts = [prompt.replace("{source}", text) for text in data.column(source)[:count]]
    prompts = [ids.tolist() for ids in encode(subject.tokenizer, texts, special=True)]
    end = subject.tokenizer.eos_token_id
    found = greedy(
        subject, prompts, new_tokens, lambda token: token == end or "\n" in subject.tokenizer.decode([token])
    )
    answers = [subject.tokenizer.decode(ids, skip_special_tokens=True).strip().partition("\n")[0] for ids in found]
    values, told, protocol = corpus_bleu(answers, data.column(reference)[:count], tokenize)
    asked = hashlib.sha256(prompt.encode()).hexdigest()[:8]
    return Scores(
        ids=data.ids()[:count],
        values=values,
        signature=f"translation_bleu|{named(data, count)}|{source}-{reference}|prompt:{asked}|new:{new_tokens}|"
        f"{protocol}|model-tok:{subject.tokenizer_hash[:12]}|v:{VERSION}",
        unit="BLEU",
        higher_is_better=True,
        extra=told,
    )


@metric(paper="papineni2002bleu")
def continuation_bleu(subject: Subject, *, task: str | None = None, prompt: Fraction = 0.5) -> Scores:
    """Corpus BLEU of how a language model continues each test window after its first part, against how it goes on.

    The words are the tokens of the task's tokenizer, so nothing depends on how they are put together again, and as
    many are generated as the window has left; there is no brevity penalty. Over all tasks, or the one that `task`
    names. Raises BadInput for images, and where fewer than four tokens would be generated.
    """
    tasks = chosen(subject, task, "continuation_bleu")
    ids: list[str] = []
    blocks: list[str] = []
    hypotheses, references = [], []
    for name, one in tasks.items():
        split = first(one.test, subject.limit)
        prefix = f"{name}/" if len(tasks) > 1 else ""
        ids += [f"{prefix}{id}" for id in split.ids]
        blocks += [f"{prefix}{block}" for block in (split.blocks or split.ids)]
        made, wanted = _continued(subject, name, one, prompt)
        hypotheses += made
        references += wanted
    values, told, protocol = corpus_bleu(hypotheses, references, "none")
    limit = f"|items:{len(ids)}" if subject.limit else ""
    return Scores(
        ids=ids,
        values=values,
        signature=f"continuation_bleu|{'+'.join(one.signature for one in tasks.values())}{limit}|prompt:{prompt:g}|"
        f"{protocol}|v:{VERSION}",
        unit="BLEU",
        higher_is_better=True,
        blocks=blocks if any(one.test.blocks for one in tasks.values()) else None,
        extra=told,
    )


def _continued(subject: Subject, name: str, task: Task, prompt: float) -> tuple[list[str], list[str]]:
    """What the model writes after the first part of each window and what is there, as ids with spaces between."""
    if task.kind != "causal-lm":
        raise BadInput(f"metric continuation_bleu is for text; task {name} is of kind {task.kind}")
    split = first(task.test, subject.limit)
    length = split.inputs.shape[1]
    given = max(1, round(prompt * length))
    if length - given < ORDER:
        raise BadInput(
            f"continuation_bleu: prompt={prompt:g} leaves {length - given} of {length} tokens; it takes {ORDER} or more"
        )
    model = subject.model if subject.model_for is None else subject.model_for(name)
    found = greedy(replace(subject, model=model.eval()), split.inputs[:, :given].tolist(), length - given)
    wanted = split.inputs[:, given:].tolist()
    return [" ".join(map(str, one)) for one in found], [" ".join(map(str, one)) for one in wanted]


def corpus_bleu(
    hypotheses: Sequence[str], references: Sequence[str], tokenize: Tokenize = "13a"
) -> tuple[np.ndarray, dict[str, float], str]:
    """(a value of each sentence whose mean is corpus BLEU, the brevity penalty and the precisions, sacreBLEU's
    signature)."""
    metrics = _sacrebleu()
    sentence = metrics.BLEU(tokenize=tokenize, effective_order=True)  # counts alone are read, which it does not change
    parts = [sentence.sentence_score(one, [other]) for one, other in zip(hypotheses, references, strict=True)]
    statistics = np.array([[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in parts], dtype=np.float64)
    corpus = metrics.BLEU(tokenize=tokenize)
    score = corpus.corpus_score(list(hypotheses), [list(references)])
    told = {"brevity_penalty": score.bp, **{f"precision_{n}": p for n, p in enumerate(score.precisions, start=1)}}
    sums = statistics.sum(0)
    values = score.score + (len(parts) * statistics - sums) @ gradient(score.score, sums)
    return values, told, str(corpus.get_signature())


def gradient(score: float, sums: np.ndarray) -> np.ndarray:
    """dB/dS of corpus BLEU by its sums: both lengths, matched and counted n-grams of each order.

    The logarithm of BLEU is min(0, 1 - reference / length) plus the mean of those of matched / counted. A matched count
    of zero, which sacreBLEU smooths to a constant, has no derivative.
    """
    length, reference = sums[:2]
    matched, counted = sums[2 : 2 + ORDER], sums[2 + ORDER :]
    slopes = np.zeros(len(sums))
    if score == 0:
        return slopes
    if length < reference:
        slopes[:2] = reference / length**2, -1 / length
    slopes[2 : 2 + ORDER] = np.divide(1, ORDER * matched, out=np.zeros(ORDER), where=matched > 0)
    slopes[2 + ORDER :] = -1 / (ORDER * counted)
    return score * slopes


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError:
        raise BadInput("BLEU needs sacrebleu; install nn-harness[bleu]") from None
    return metrics
