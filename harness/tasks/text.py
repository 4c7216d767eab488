"""Language modelling tasks: windows of a data set's text, as a tokenizer cuts it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from harness import data
from harness.errors import BadInput
from harness.tasks.task import Split, Task, drawn, known_fields

KIND = "causal-lm"
FIELDS: dict[str, Any] = {
    "dataset": None,
    "split": "train",
    "tokenizer": None,
    "length": 128,
    "train": 1000,
    "dev": 50,
    "test": 100,
}
"""Fields of a text task and their defaults: numbers of windows of `length` tokens, and the model whose tokenizer cuts
the text (the problem's own, where it has one)."""
BLOCK = 4096
"""Tokens of consecutive windows that are resampled together."""
SPARE = 4
"""Times as many windows are read as are drawn from, where there is as much text."""


def describe(spec: Mapping[str, Any]) -> dict[str, str]:
    """Content hashes of the training and test text; BadInput for a field that is wrong."""
    fields = check(spec)
    test = data.locate(fields["dataset"]).split
    return {split: data.content_hash(fields["dataset"], split) for split in dict.fromkeys((fields["split"], test))}


def check(spec: Mapping[str, Any]) -> dict[str, Any]:
    fields = known_fields(spec, FIELDS, "task")
    if not isinstance(fields["dataset"], str):
        raise BadInput(f"task: dataset={fields['dataset']!r} is not accepted; it takes the name of a data set")
    for name in ("train", "dev", "test", "length"):
        if type(fields[name]) is not int or fields[name] < 1:
            raise BadInput(f"task: {name}={fields[name]!r} is not accepted; it takes a number of at least 1")
    return fields


def make(spec: Mapping[str, Any], generator: torch.Generator, *, model: Any = None) -> Task:
    """The task of a specification; which windows train and which develop is drawn from the generator.

    `model` is the handle whose tokenizer is used unless the specification names one.
    """
    from harness.models import open_model

    fields = check(spec)
    if fields["tokenizer"]:
        model = open_model(fields["tokenizer"])
    if model is None:
        raise BadInput("task: a text needs `tokenizer`, the name of a model whose tokenizer cuts it")
    name, length = fields["dataset"], fields["length"]
    test = data.locate(name).split
    wanted = (fields["train"], fields["dev"])
    rows = _windows(name, fields["split"], model, length, SPARE * sum(wanted), generator)
    train, dev = drawn(len(rows), wanted, generator, f"data set {name} in windows of {length} tokens")
    tests = _windows(name, test, model, length, fields["test"], None)
    if len(tests) < fields["test"]:
        raise BadInput(f"task: data set {name}:{test} has {len(tests)} windows of {length} tokens; test asks for more")
    digest = data.content_hash(name, test)[:12]
    return Task(
        name,
        "causal-lm",
        _split(rows[train.numpy()], f"{name}:{fields['split']}"),
        _split(rows[dev.numpy()], f"{name}:{fields['split']}"),
        _split(tests, f"{name}:{test}"),
        f"{name}:{test}@{digest}|ctx:{length}|windows:{len(tests)}|tok:{model.tokenizer_hash[:12]}",
        len(model.tokenizer),
        model.tokenizer_hash,
    )


def _split(rows: np.ndarray, name: str) -> Split:
    """Windows (N, length + 1) as inputs and the tokens that follow them."""
    tokens = torch.from_numpy(rows.astype(np.int64))
    length = tokens.shape[1] - 1
    blocks = [f"{name}:{row * length // BLOCK}" for row in range(len(tokens))]
    ids = [f"{name}:{row}" for row in range(len(tokens))]
    return Split(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), ids, blocks)


def _windows(
    name: str, split: str, model: Any, length: int, count: int, generator: torch.Generator | None
) -> np.ndarray:
    """At most `count` windows (N, length + 1) of a split's text, one document after the other; in a random order of
    the documents, if there is a generator, so that a large data set need not be read whole."""
    found, kept, stream = data.load(name, split=split), 0, []
    column = "input_ids" if "input_ids" in found.columns else found.source.text or "text"
    texts = found.column(column)
    order = range(len(texts)) if generator is None else torch.randperm(len(texts), generator=generator).tolist()
    for tokens in _documents([texts[row] for row in order], model.tokenizer):
        stream.append(tokens)
        kept += len(tokens)
        if kept > (count + 1) * (length + 1):
            break
    flat = np.concatenate(stream) if stream else np.zeros(0, dtype=np.int32)
    whole = min(count, (len(flat) - 1) // length)
    if whole < 1:
        raise BadInput(f"data set {name}:{split} is shorter than a window: {len(flat)} tokens, length={length}")
    return np.stack([flat[row * length : row * length + length + 1] for row in range(whole)])


def _documents(texts: list[Any], tokenizer: Any, step: int = 256) -> Iterator[np.ndarray]:
    """The tokens of each text, and the end of it where the tokenizer has a token for that."""
    from harness.metrics.tokens import encode

    if texts and not isinstance(texts[0], str):
        yield from (np.asarray(tokens, dtype=np.int32) for tokens in texts)
        return
    end = tokenizer.eos_token_id
    for start in range(0, len(texts), step):
        for tokens in encode(tokenizer, texts[start : start + step], special=False):
            yield tokens if end is None else np.append(tokens, end)
