"""What the task files say in Python: each function reads a data set and lays out its questions.

A question has `id` (the data set's stable name of the item), `query` (the context), and for a choice `choices` and
`gold` (the right one's index); for a completion `target`. Prompts are those of lm-eval's own tasks of these names, so
scores on the same data are the same.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness import data

if TYPE_CHECKING:
    from datasets import DatasetDict

Row = dict[str, Any]


def _task(layout: Callable[[Row], Row]) -> Callable[..., DatasetDict]:
    """A loader for lm-eval's `custom_dataset`; `dataset` and `split` are given in the task file."""

    @functools.wraps(layout)
    def load(*, dataset: str, split: str, **_: Any) -> DatasetDict:
        from datasets import Dataset, DatasetDict

        source = data.load(dataset, split=split)
        rows = source.table.to_pylist()
        questions = [{"id": name, **layout(row)} for name, row in zip(source.ids(), rows, strict=True)]
        return DatasetDict({split: Dataset.from_list(questions)})

    return load


@_task
def hellaswag(row: Row) -> Row:
    query = _without_marks(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    return {"query": query, "choices": [_without_marks(ending) for ending in row["endings"]], "gold": int(row["label"])}


def _without_marks(text: str) -> str:
    """WikiHow's markup, which the authors left in the text."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


@_task
def piqa(row: Row) -> Row:
    return {"query": _question(row["goal"]), "choices": [row["sol1"], row["sol2"]], "gold": row["label"]}


@_task
def arc(row: Row) -> Row:
    choices = row["choices"]
    gold = choices["label"].index(row["answerKey"])
    return {"query": _question(row["question"]), "choices": choices["text"], "gold": gold}


def _question(text: str) -> str:
    return f"Question: {text}\nAnswer:"


@_task
def winogrande(row: Row) -> Row:
    """The option stands in the context and the rest of the sentence is scored (partial evaluation)."""
    before, _, after = row["sentence"].partition("_")
    contexts = [before + row["option1"], before + row["option2"]]
    return {"query": int(row["answer"]) - 1, "choices": contexts, "target": after.strip()}


@_task
def lambada(row: Row) -> Row:
    query, _, last = row["text"].rpartition(" ")
    return {"query": query, "target": f" {last}"}


@_task
def blimp(row: Row) -> Row:
    return {"query": "", "choices": [row["sentence_good"], row["sentence_bad"]], "gold": 0}
