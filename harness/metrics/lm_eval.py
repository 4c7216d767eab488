"""Scores per item from lm-eval's tasks, its own or those of suites/lm_eval (`harness_...`), and BLiMP directly."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from harness.errors import BadInput, nearest
from harness.metrics.lm_eval_adapter import adapter, loglikelihood
from harness.metrics.subject import Subject, named
from harness.params import Count, Dataset, Range
from harness.registry import metric
from harness.scores import Scores, Summary

VERSION = 1
TASKS = Path(__file__).parents[2] / "suites" / "lm_eval"
OURS = "harness_"
SUMMARIES: dict[str, Summary] = {"mean": "mean", "perplexity": "exp_mean", "weighted_perplexity": "exp_mean"}
"""lm-eval's aggregations that are a function of one number per item."""


SENTENCES = ("sentence_good", "sentence_bad")


@metric(bounds=(0, 1))
def blimp(
    subject: Subject, *, dataset: Dataset = "blimp", split: str = "train", limit_per_paradigm: Count | None = None
) -> Scores:
    """Accuracy on BLiMP's minimal pairs: how often the acceptable sentence is the likelier one (Warstadt et al. 2020).

    A pair is an item, `<paradigm>:<pair>`; of each of the 67 paradigms the first `limit_per_paradigm` are used. As in
    lm-eval, a sentence follows the beginning-of-sequence token and a blank, and equal likelihoods count as right.
    `extra` has the accuracy of each linguistic phenomenon.
    """
    subject.require("causal-lm", "blimp")
    data = subject.data(dataset, split)
    rows = _of_each_paradigm(data.column("config"), limit_per_paradigm, subject.limit)
    ids, good, bad = ([column[i] for i in rows] for column in (data.ids(), *map(data.column, SENTENCES)))
    answers = loglikelihood(subject, [("", f" {sentence}") for sentence in [*good, *bad]])
    likelihood = np.array([value for value, _ in answers]).reshape(2, -1)
    correct = (likelihood[0] >= likelihood[1]).astype(float)
    terms = np.array(data.column("linguistics_term"))[rows]
    return Scores(
        ids=ids,
        values=correct,
        signature=f"blimp|{named(data, len(rows))}|context:bos+blank|v:{VERSION}",
        unit="accuracy",
        higher_is_better=True,
        extra={str(term): float(correct[terms == term].mean()) for term in np.unique(terms)},
    )


def _of_each_paradigm(paradigms: list[str], each: int | None, most: int | None) -> list[int]:
    """Rows of the first pairs of every paradigm; with `most`, the first so many when taken from each in turn."""
    groups = [list(rows) for _, rows in itertools.groupby(range(len(paradigms)), key=paradigms.__getitem__)]
    turns = itertools.zip_longest(*(rows[:each] for rows in groups))
    in_turn = [row for turn in turns for row in turn if row is not None]
    return sorted(in_turn[:most])


@metric()
def lm_eval(
    subject: Subject, *, task: str, score: str = "acc", shots: Annotated[int, Range(0, None)] | None = None
) -> Scores:
    """One score of an lm-eval task, or of the tasks of a group, for each of its items.

    `task` names a file of suites/lm_eval (`harness_hellaswag`) or one of lm-eval's own tasks (`hellaswag`), whose data
    comes from the Hub. `score` is one of the task's metrics that are defined per item (`acc`, `acc_norm`,
    `exact_match`, `word_perplexity`...). Raises BadInput for a task or score that does not exist.
    """
    subject.require("causal-lm", "lm_eval")
    with _quiet():
        tasks = _load(task)
        for one in tasks.values():
            _prepare(one, score, shots, subject.limit)
        items = [item for one in tasks.values() for item in _answers(one, score, adapter(subject))]
    first = next(iter(tasks.values()))
    weights = np.array([weight for *_, weight in items])
    summary = SUMMARIES[_aggregation(first, score)]
    values = np.array([value for _, value, _ in items])
    return Scores(
        ids=[name for name, *_ in items],
        values=-values / weights if summary == "exp_mean" else values,
        signature=(
            f"lm_eval|{task}|{score}|shots:{shots if shots is not None else first.config.num_fewshot or 0}"
            f"|requests:{_requests_hash(tasks)}|lm-eval:{importlib.metadata.version('lm-eval')}|v:{VERSION}"
        ),
        summary=summary,
        unit=score,
        higher_is_better=bool(first.higher_is_better()[score]),
        weights=weights,
    )


def _load(name: str) -> dict[str, Any]:
    """The tasks that a name stands for. Listing lm-eval's own, thousands of files, takes a while: only where needed."""
    from lm_eval.tasks import TaskManager

    ours = name.startswith(OURS)
    manager = TaskManager(include_path=str(TASKS), include_defaults=not ours)
    if name not in manager.all_tasks:
        raise BadInput(f"lm_eval: unknown task {name!r}; {nearest(name, manager.all_tasks)}")
    try:
        return manager.load(name)["tasks"]
    except BadInput:
        raise
    except Exception as error:  # a data set that cannot be had fails in many ways
        raise BadInput(f"lm_eval: task {name} cannot be loaded: {type(error).__name__}: {error}") from error


def _prepare(task: Any, score: str, shots: int | None, limit: int | None) -> None:
    known = [name for name in task.aggregation() if _aggregation(task, name) in SUMMARIES]
    if score not in known:
        raise BadInput(f"lm_eval: task {task.task_name} has no score {score!r} per item; {nearest(score, known)}")
    if shots is not None:
        if shots and not (task.config.fewshot_split or task.config.training_split):
            raise BadInput(f"lm_eval: task {task.task_name} has no split to take examples from; it takes shots=0")
        task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(1234)
    task.build_all_requests(limit=limit)


def _aggregation(task: Any, score: str) -> str:
    return getattr(task.aggregation()[score], "__name__", "")


def _answers(task: Any, score: str, model: Any) -> Iterator[tuple[str, float, float]]:
    """(id, value, weight) of each item of a task."""
    for kind, requests in itertools.groupby(task.instances, key=lambda instance: instance.request_type):
        batch = list(requests)
        for instance, answer in zip(batch, getattr(model, kind)(batch), strict=True):
            instance.resps = [answer] * (instance.repeats or 1)
    task.apply_filters()
    for _, group in itertools.groupby(task.instances, key=lambda instance: instance.doc_id):
        instances = list(group)
        chosen = next(iter(instances[0].filtered_resps))
        doc = instances[0].doc
        value = task.process_results(doc, [instance.filtered_resps[chosen] for instance in instances])[score]
        # A perplexity's item is a log-likelihood, alone or with the number of words or bytes that share it.
        value, weight = value if isinstance(value, tuple) else (value, 1)
        yield f"{task.task_name}:{_id(doc)}", float(value), float(weight)


def _id(doc: dict) -> str:
    """The data set's name for an item, or a hash of what is in it: never its position."""
    return str(doc["id"]) if "id" in doc else hashlib.sha256(repr(sorted(doc.items())).encode()).hexdigest()[:16]


def _requests_hash(tasks: dict[str, Any]) -> str:
    """Hash of every prompt: the data, its wording and the examples before it."""
    digest = hashlib.sha256()
    for task in tasks.values():
        for instance in task.instances:
            digest.update(repr(instance.args).encode())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and the advice that lm-eval prints for every task."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
