"""Language modelling tasks: windows of a data set's text, as a tokenizer cuts it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
the text (the problem's own, where it has one). Test windows are spread evenly over the test text."""
BLOCK = 512
"""Tokens of the text whose windows are resampled together. Differences between two models in neighbouring windows of 64
tokens of Shakespeare correlate by 0.06 to 0.09, in windows 512 tokens apart by -0.07 to 0.03 (339 windows; three bits
against sixteen, tuned against not)."""
SPARE = 4
"""Times as many training windows are read as are drawn from, where there is as much text."""
MOST = 4_000_000
"""Tokens of a test text that are read at most."""


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
    rows = _windows(name, fields["split"], model, length, SPARE * sum(wanted) * (length + 1), generator)
    train, dev = drawn(len(rows), wanted, generator, f"data set {name} in windows of {length} tokens")
    tests = _windows(name, test, model, length, MOST)
    if len(tests) < fields["test"]:
        raise BadInput(f"task: data set {name}:{test} has {len(tests)} windows of {length} tokens; test asks for more")
    kept = np.arange(fields["test"]) * len(tests) // fields["test"]
    digest = data.content_hash(name, test)[:12]
    return Task(
        name,
        "causal-lm",
        _split(rows, train.numpy(), f"{name}:{fields['split']}"),
        _split(rows, dev.numpy(), f"{name}:{fields['split']}"),
        _split(tests, kept, f"{name}:{test}"),
        f"{name}:{test}@{digest}|ctx:{length}|windows:{len(kept)} of {len(tests)}|tok:{model.tokenizer_hash[:12]}",
        len(model.tokenizer),
        model.tokenizer_hash,
    )


def _split(windows: np.ndarray, chosen: np.ndarray, name: str) -> Split:
    """The chosen ones of all windows (N, length + 1) as inputs and the tokens that follow them."""
    tokens = torch.from_numpy(windows[chosen].astype(np.int64))
    length = tokens.shape[1] - 1
    blocks = [f"{name}:{row * length // BLOCK}" for row in chosen.tolist()]
    ids = [f"{name}:{row}" for row in chosen.tolist()]
    return Split(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), ids, blocks)


def _windows(
    name: str, split: str, model: Any, length: int, most: int, generator: torch.Generator | None = None
) -> np.ndarray:
    """The windows (N, length + 1) of a split's text, one document after the other, of at most some `most` tokens; in a
    random order of the documents, if there is a generator, so that a large data set need not be read whole."""
    found, kept, stream = data.load(name, split=split), 0, []
    column = "input_ids" if "input_ids" in found.columns else found.source.text or "text"
    texts = found.column(column)
    order = range(len(texts)) if generator is None else torch.randperm(len(texts), generator=generator).tolist()
    for tokens in _documents(texts, order, model.tokenizer):
        stream.append(tokens)
        kept += len(tokens)
        if kept > most:
            break
    flat = np.concatenate(stream) if stream else np.zeros(0, dtype=np.int32)
    whole = (min(len(flat), most) - 1) // length
    if whole < 1:
        raise BadInput(f"data set {name}:{split} is shorter than a window: {len(flat)} tokens, length={length}")
    return np.stack([flat[row * length : row * length + length + 1] for row in range(whole)])


def _documents(texts: Sequence[Any], order: Sequence[int], tokenizer: Any, step: int = 256) -> Iterator[np.ndarray]:
    """The tokens of each text in this order, and the end of it where the tokenizer has a token for that."""
    from harness.metrics.tokens import encode

    if len(texts) and not isinstance(texts[0], str):
        yield from (np.asarray(texts[row], dtype=np.int32) for row in order)
        return
    end = tokenizer.eos_token_id
    for start in range(0, len(order), step):
        for tokens in encode(tokenizer, [texts[row] for row in order[start : start + step]], special=False):
            yield tokens if end is None else np.append(tokens, end)
