"""The adapter gives lm-eval what its own HFLM gives it."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
import torch
from metrics_samples import WORDS, llama, subject, tokenizer

from harness.errors import BadInput
from harness.metrics.lm_eval_adapter import adapter, tokenize


@functools.cache
def hflm(bos: bool = True):
    pytest.importorskip("accelerate", reason="lm-eval's HFLM needs the package accelerate")
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=llama(), tokenizer=tokenizer(bos), device="cpu", batch_size=4)


def instances(kind: str, arguments: list[tuple]) -> list:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, i, ("task", i, 1)) for i, args in enumerate(arguments)]


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS.split(), k=words))


def pairs() -> list[tuple[str, str]]:
    """Answers to common contexts, sentences without one, one-token answers, and everything awkward."""
    rng = random.Random(0)
    found = []
    for _ in range(12):
        context = sentence(rng, rng.randint(1, 25))
        found += [(context, f" {sentence(rng, rng.randint(1, 6))}") for _ in range(4)]
    found += [("", sentence(rng, rng.randint(1, 12))) for _ in range(20)]
    found += [("Answer:", f" {letter}") for letter in "ABCD"]
    found += [
        ("trailing blanks  ", "cat"),
        ("the cat", " sat"),
        ("the cat", " sat"),  # twice
        ("<s>the cat", " sat"),
        ("", "<s>the cat"),
        ("été ☃", " naïve 🐈"),
        (sentence(rng, 120), " cat sat"),  # longer than the model
        ("x", sentence(rng, 24)),
    ]
    return found


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("budget", [64, None])
def test_log_likelihoods_are_those_of_hflm(bos, budget):
    requests = instances("loglikelihood", pairs())
    ours = adapter(subject(bos=bos), budget=budget).loglikelihood(requests)
    theirs = hflm(bos).loglikelihood(requests, disable_tqdm=True)
    assert np.abs(np.array([a for a, _ in ours]) - np.array([b for b, _ in theirs])).max() < 1e-4
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def test_an_answer_that_greedy_decoding_gives_is_greedy():
    ids = tokenizer()("the cat sat on the mat")["input_ids"]
    with torch.no_grad():
        best = int(llama()(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
    answer = tokenizer().decode([best])
    requests = instances("loglikelihood", [("the cat sat on the mat", answer), ("the cat sat on the mat", " zebra")])
    (_, first), (_, second) = adapter(subject()).loglikelihood(requests)
    assert tokenizer()("the cat sat on the mat" + answer)["input_ids"] == [*ids, best]  # the answer stays one token
    assert first
    assert not second


@pytest.mark.parametrize("bos", [True, False])
def test_rolling_log_likelihoods_are_those_of_hflm(bos):
    rng = random.Random(1)
    texts = [(sentence(rng, words),) for words in (1, 3, 40, 200)] + [("<s>the cat",)]
    requests = instances("loglikelihood_rolling", texts)
    ours = adapter(subject(bos=bos)).loglikelihood_rolling(requests)
    assert np.allclose(ours, hflm(bos).loglikelihood_rolling(requests, disable_tqdm=True), rtol=1e-6, atol=1e-4)


def test_greedy_generation_is_that_of_hflm():
    rng = random.Random(2)
    settings = [{"until": ["\n", " the"], "max_gen_toks": 12, "do_sample": False}, {"until": ["q"], "max_gen_toks": 5}]
    requests = instances("generate_until", [(sentence(rng, n), settings[n % 2]) for n in range(1, 9)])
    ours = adapter(subject()).generate_until(requests)
    assert ours == hflm().generate_until(requests, disable_tqdm=True)
    assert len(set(ours)) > 2


def test_sampling_is_refused():
    requests = instances("generate_until", [("the cat", {"do_sample": True, "temperature": 0.7})])
    with pytest.raises(BadInput, match="only greedy decoding is supported"):
        adapter(subject()).generate_until(requests)


def test_lm_eval_itself_accepts_the_adapter():
    """lm-eval's evaluator, over a task defined here."""
    from lm_eval import evaluate
    from lm_eval.tasks import TaskManager

    task = {
        "task": "sample",
        "custom_dataset": _questions,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "query",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    tasks = TaskManager(include_defaults=False).load(task)
    accuracy = [
        evaluate(lm=model, task_dict=tasks, bootstrap_iters=0)["results"]["sample"]["acc,none"]
        for model in (adapter(subject()), hflm())
    ]
    assert accuracy[0] == accuracy[1]
    assert 0 < accuracy[0] < 1


def _questions(**_):
    from datasets import Dataset, DatasetDict

    rng = random.Random(3)
    rows = [
        {"query": sentence(rng, 5), "choices": [sentence(rng, 2) for _ in range(3)], "gold": rng.randrange(3)}
        for _ in range(20)
    ]
    return DatasetDict(test=Dataset.from_list(rows))


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(BadInput, match="a continuation has 0 tokens after 'the cat'"):
        tokenize(tokenizer(), [("the cat", "")], 128)
    with pytest.raises(BadInput, match="it takes from 1 to 4"):
        tokenize(tokenizer(), [("the cat", " sat on the mat and the dog")], 4)


def test_a_context_that_is_too_long_loses_its_beginning():
    ((tokens,), (scored,)) = tokenize(tokenizer(), [("the cat sat on the mat", " and the dog")], 6)
    assert len(tokens) == 7
    assert tokenizer().decode(tokens[-scored:]) == " and the dog"
