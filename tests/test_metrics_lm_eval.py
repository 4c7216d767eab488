"""Scores per item from BLiMP and from lm-eval's tasks."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from metrics_samples import llama, subject, with_data

from harness import data
from harness.data import Dataset, Source
from harness.errors import BadInput
from harness.metrics import lm_eval as module
from harness.metrics.lm_eval import blimp, lm_eval
from harness.metrics.lm_eval_adapter import adapter, loglikelihood
from harness.metrics.subject import Subject

GOOD = ["the cat sat", "the dog saw it", "nobody sits there", "cats sat"]
BAD = ["the cats sats", "the dog saw saw", "nobody sit there", "cats sat"]
ROWS = {
    "hellaswag": {
        "activity_label": ["Cats", "Dogs"],
        "ctx_a": ["the cat [step] sat", "the dog"],
        "ctx_b": ["on the", ""],
        "endings": [["mat [title] and", "dog", "cat", "it"], ["sat", "who", "nobody", "said"]],
        "label": ["0", "2"],
    },
    "piqa": {"goal": ["sit", "see"], "sol1": ["on the mat", "it"], "sol2": ["there", "that"], "label": [1, 0]},
    "arc-easy": {
        "question": ["who sat", "who saw it"],
        "choices": [{"text": ["cat", "dog"], "label": ["A", "B"]}, {"text": ["who", "that"], "label": ["1", "3"]}],
        "answerKey": ["B", "3"],
    },
    "winogrande": {
        "sentence": ["the cat saw the dog and _ sat", "_ said it"],
        "option1": ["the cat", "nobody"],
        "option2": ["the dog", "who"],
        "answer": ["2", "1"],
    },
    "lambada": {"text": ["the cat sat on the mat", "the dog saw the cat"]},
}  # fmt: skip
ROWS["arc-challenge"] = ROWS["arc-easy"]


def pairs(paradigms=("one", "one", "two", "two")) -> dict:
    return {
        "sentence_good": GOOD,
        "sentence_bad": BAD,
        "linguistics_term": ["islands", "islands", "binding", "binding"],
        "pair_id": [0, 1, 0, 1],
        "config": list(paradigms),
    }


@pytest.fixture
def small_data(monkeypatch):
    """Two rows in place of every data set, and of every paradigm of BLiMP."""
    every = re.findall(r'"blimp:(\w+)"', (module.TASKS / "blimp.yaml").read_text())
    names = np.repeat(every, 2).tolist()
    whole = {name: (values * 34)[: len(names)] for name, values in pairs().items()}
    whole |= {"config": names, "pair_id": [0, 1] * len(every)}

    def load(name, *, split=None, limit=None):
        if name.startswith("blimp"):
            wanted = [i for i, paradigm in enumerate(names) if name in ("blimp", f"blimp:{paradigm}")]
            table = pa.table(whole).take(wanted)
            if name != "blimp":
                table = table.drop_columns("config")
            return Dataset(Source("blimp", "blimp", "*", split, item_id="pair_id"), table, "d" * 64)
        return Dataset(Source(name, name, "default", split), pa.table(ROWS[name]), "d" * 64)

    monkeypatch.setattr(data, "load", load)


def likelihoods(requests):
    return [value for value, _ in loglikelihood(subject(), requests)]


def test_a_minimal_pair_is_right_if_the_good_sentence_is_likelier():
    scores = blimp(with_data(subject(), pairs(), item_id="pair_id"))
    every = likelihoods([("", f" {text}") for text in (*GOOD, *BAD)])
    good, bad = every[: len(GOOD)], every[len(GOOD) :]
    right = [float(a >= b) for a, b in zip(good, bad, strict=True)]
    assert scores.values.tolist() == right
    assert right[3] == 1.0  # two equal sentences count as right, as in lm-eval
    assert scores.ids == ["one:0", "one:1", "two:0", "two:1"]
    assert scores.extra == {"binding": np.mean(right[2:]), "islands": np.mean(right[:2])}
    assert scores.signature == "blimp|sample:test@dddddddddddd|context:bos+blank|v:1"


def test_limits_take_the_first_pairs_of_every_paradigm():
    sample = with_data(subject(), pairs(("one", "one", "one", "two")), item_id="pair_id")
    assert blimp(sample, limit_per_paradigm=1).ids == ["test:0", "test:3"]
    sample.limit = 3
    assert blimp(sample).ids == ["test:0", "test:1", "test:3"]
    assert "|items:3|" in blimp(sample).signature


def test_blimp_and_the_task_file_of_it_agree(small_data):
    direct, task = blimp(subject()), lm_eval(subject(), task="harness_blimp")
    assert len(direct.ids) == len(task.ids) == 2 * 67
    assert [name.removeprefix("harness_blimp::") for name in task.ids] == direct.ids
    assert task.values.tolist() == direct.values.tolist()


WHO = "Question: who sat\nAnswer:"
CHOICES = {
    "harness_hellaswag": ([("Cats: the cat sat On the", " mat. and"), ("Cats: the cat sat On the", " dog")], 4, 0),
    "harness_piqa": ([("Question: sit\nAnswer:", " on the mat"), ("Question: sit\nAnswer:", " there")], 2, 1),
    "harness_arc_easy": ([(WHO, " cat"), (WHO, " dog")], 2, 1),
    "harness_arc_challenge": ([(WHO, " cat"), (WHO, " dog")], 2, 1),
    "harness_winogrande": ([(f"the cat saw the dog and the {who}", " sat") for who in ("cat", "dog")], 2, 1),
}


@pytest.mark.parametrize("task", CHOICES)
def test_the_likeliest_answer_is_the_one_given(small_data, monkeypatch, task):
    """For every answer in turn: made the likeliest, it alone decides whether the item is right."""
    expected, answers, gold = CHOICES[task]
    for likeliest in range(answers):

        def score(_, pairs, budget=None, likeliest=likeliest):
            assert pairs[: len(expected)] == expected
            return [(-1.0 - 10.0 * (i % answers != likeliest), False) for i in range(len(pairs))]

        monkeypatch.setattr("harness.metrics.lm_eval_adapter.loglikelihood", score)
        scores = lm_eval(subject(limit=1), task=task)
        assert scores.values.tolist() == [float(likeliest == gold)]
    assert scores.summary == "mean"
    assert scores.higher_is_better


def test_the_normalised_score_divides_by_the_answers_length(small_data):
    """Characters without the blank before them, as lm-eval counts them."""
    answers = ["on the mat", "there"]
    values = np.array(likelihoods([("Question: sit\nAnswer:", f" {answer}") for answer in answers]))
    scores = lm_eval(subject(limit=1), task="harness_piqa", score="acc_norm")
    assert scores.values[0] == ((values / [len(answer) for answer in answers]).argmax() == 1)


def test_a_completion(small_data):
    expected = likelihoods([("the cat sat on the", " mat"), ("the dog saw the", " cat")])
    scores = lm_eval(subject(), task="harness_lambada", score="perplexity")
    assert np.allclose(scores.values, -np.array(expected))
    assert scores.value == pytest.approx(np.exp(-np.mean(expected)))
    assert scores.summary == "exp_mean"
    assert not scores.higher_is_better
    assert lm_eval(subject(), task="harness_lambada").values.tolist() == [0.0, 0.0]


def test_the_signature_holds_the_prompts_and_the_version(small_data):
    one = lm_eval(subject(), task="harness_piqa").signature
    assert one.startswith("lm_eval|harness_piqa|acc|shots:0|requests:")
    assert f"|lm-eval:{version('lm-eval')}|" in one
    assert one != lm_eval(subject(limit=1), task="harness_piqa").signature


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "harness_hellswag"}, "unknown task 'harness_hellswag'; did you mean harness_hellaswag"),
        ({"task": "harness_piqa", "score": "accuracy"}, "task harness_piqa has no score 'accuracy' per item; .*acc"),
        (
            {"task": "harness_piqa", "shots": 5},
            "task harness_piqa has no split to take examples from; it takes shots=0",
        ),
    ],
)
def test_refused(small_data, options, message):
    with pytest.raises(BadInput, match=message):
        lm_eval(subject(), **options)


def test_a_missing_data_set_is_refused_in_one_line(monkeypatch):
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    with pytest.raises(BadInput, match="dataset piqa:validation is not at hand"):
        lm_eval(subject(), task="harness_piqa")


LM_EVALS_OWN = {
    "hellaswag": "hellaswag/hellaswag.yaml",
    "piqa": "piqa/piqa.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "winogrande": "winogrande/default.yaml",
    "lambada": "lambada/lambada_openai.yaml",
    "blimp": "blimp/wh_island.yaml",
}


@pytest.mark.parametrize("name", LM_EVALS_OWN)
def test_prompts_are_those_of_lm_evals_own_task(mirror, name):
    """The same requests in the same order, from the same rows."""
    import lm_eval.tasks
    from datasets import Dataset as Rows
    from datasets import DatasetDict
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    short = name.replace("_", "-")
    rows = data.load("blimp:wh_island" if name == "blimp" else short)
    splits = DatasetDict(dict.fromkeys(("train", "validation", "test"), Rows(rows.table.slice(0, 50))))
    settings = load_yaml(Path(lm_eval.tasks.__file__).parent / LM_EVALS_OWN[name])
    theirs = ConfigurableTask(config={**settings, "custom_dataset": lambda **_: splits})
    with module._quiet():
        tasks = module._load(f"harness_{name}")
        ours = tasks["harness_blimp::wh_island" if name == "blimp" else f"harness_{name}"]
        requests = []
        for task in (ours, theirs):
            task.build_all_requests(limit=50)
            requests.append([instance.args for instance in task.instances])
    assert requests[0] == requests[1]
    gold = [[task.doc_to_target(doc) for doc in task.eval_docs.select(range(50))] for task in (ours, theirs)]
    assert gold[0] == gold[1]


@pytest.mark.parametrize("name", ["blimp", "hellaswag", "lambada", "piqa", "arc_easy", "arc_challenge"])
def test_log_likelihoods_of_real_requests_are_those_of_hflm(mirror, name):
    compare_with_hflm(subject(llama(max_position_embeddings=512)), name, 1 if name == "blimp" else 12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["blimp", "hellaswag", "lambada", "piqa", "arc_easy", "arc_challenge"])
def test_log_likelihoods_of_tiny_llama_are_those_of_hflm(mirror, name):
    from harness.models import open_model

    handle = open_model("tiny-llama")
    compare_with_hflm(Subject.of(handle, handle.load()), name, 10 if name == "blimp" else 150)


def compare_with_hflm(sample, name: str, limit: int) -> None:
    pytest.importorskip("accelerate", reason="lm-eval's HFLM needs the package accelerate")
    from lm_eval.models.huggingface import HFLM

    with module._quiet():
        tasks = module._load(f"harness_{name}").values()
        for task in tasks:
            task.build_all_requests(limit=limit)
    requests = [instance for task in tasks for instance in task.instances]
    theirs = HFLM(pretrained=sample.model, tokenizer=sample.tokenizer, device="cpu", batch_size=32)
    expected = theirs.loglikelihood(requests, disable_tqdm=True)
    found = adapter(sample).loglikelihood(requests)
    ours, hflm = (np.array([value for value, _ in answers]) for answers in (found, expected))
    # HFLM adds up in float32, where each of hundreds of additions may round by half the spacing of the sum. Of its 300
    # sums of piqa the worst (1053 nats, 239 tokens) is 1.03 spacings from the sum in float64; ours is 0.007 from it.
    assert (np.abs(ours - hflm) <= np.maximum(1e-4, 2 * np.spacing(np.abs(hflm).astype(np.float32)))).all()
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
