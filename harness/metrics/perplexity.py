"""Perplexity and mean negative log-likelihood of text.

The protocol, all of which is in the signature:

- A text is either every row of the data set by itself (`join=none`: a document a row) or all rows together (`rows`: as
  they are; `paragraphs`: with a blank line between them, as published tables of quantized models read WikiText-2).
  `auto` is `rows` for the data sets whose rows are the lines of one text, else `none`.
- A text is tokenized whole, without special tokens, and read in windows of `context` tokens, one every `stride` tokens.
  Each token is scored once, in the first window that holds it. The last window of a text may be shorter.
- A window is preceded by the beginning-of-sequence token (`bos`; the end-of-sequence token where the tokenizer has no
  other), or else by the text's previous token, and then a text's first token is only context. Either way the model sees
  at most `context` positions.
- `unit` is what the loss is divided by: tokens, words (runs of characters between white space) or UTF-8 bytes. A text's
  words or bytes are shared out evenly over its tokens, so every window has its part and the sum is exact.

An item is a window, its id `<document>:<first token>`; the unit of resampling is the document, or, in a joined text,
`BLOCK` consecutive tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.errors import BadInput
from harness.metrics.likelihood import log_likelihoods
from harness.metrics.subject import Subject, named
from harness.metrics.tokens import encode, prefix_token
from harness.params import Count, Dataset
from harness.registry import metric
from harness.scores import Scores

if TYPE_CHECKING:
    from harness.data import Dataset as Data

VERSION = 1
BLOCK = 4096
LINES = {"Salesforce/wikitext", "karpathy/tiny_shakespeare"}
"""Data sets whose rows are the lines of one text."""
Unit = Literal["token", "word", "byte"]
Join = Literal["auto", "none", "rows", "paragraphs"]


@dataclass(frozen=True)
class Window:
    """Tokens to run through the model, of which the last `scored` are predicted; `units` is their size."""

    id: str
    block: str
    tokens: np.ndarray
    scored: int
    units: float


@metric()
def perplexity(
    subject: Subject,
    *,
    dataset: Dataset,
    split: str = "test",
    context: Count = 512,
    stride: Count | None = None,
    unit: Unit = "token",
    bos: bool = True,
    join: Join = "auto",
    windows: Count | None = None,
    log: bool = False,
) -> Scores:
    """Perplexity of text: exp of the negative log-likelihood per token, word or byte.

    `stride` is `context` unless given: windows that do not overlap. `windows` keeps that many of them, evenly spread.
    `log` gives the logarithm, in nats. Raises BadInput for a text shorter than the context, a context longer than the
    model's, a stride longer than the context. The module's documentation says what is computed.
    """
    subject.require("causal-lm", "perplexity")
    stride = stride or context
    if stride > context:
        raise BadInput(f"perplexity: stride={stride} leaves out text; it takes at most the context, {context}")
    if subject.max_length and context > subject.max_length:
        raise BadInput(f"perplexity: context={context} is longer than {subject.name}'s, {subject.max_length} tokens")
    data = subject.data(dataset, split)
    join = _how_to_join(data, join)
    found = spread(list(_windows(subject.tokenizer, data, context, stride, unit, bos, join)), windows, subject.limit)
    likelihood, _ = log_likelihoods(subject, [w.tokens for w in found], [w.scored for w in found])
    units = np.array([window.units for window in found])
    limit = f"|windows:{len(found)}" if windows or subject.limit else ""
    return Scores(
        ids=[window.id for window in found],
        values=-likelihood / units,
        signature=(
            f"{'nll' if log else 'perplexity'}|{named(data)}|join:{join}|ctx:{context}|stride:{stride}|unit:{unit}"
            f"|bos:{int(bos)}|tok:{subject.tokenizer_hash[:12]}{limit}|v:{VERSION}"
        ),
        summary="mean" if log else "exp_mean",
        unit=f"nats/{unit}" if log else unit,
        weights=units,
        blocks=[window.block for window in found],
    )


def _how_to_join(data: Data, join: Join) -> Join:
    if join != "auto":
        return join
    return "rows" if data.id in LINES else "none"


def _windows(
    tokenizer: Any, data: Data, context: int, stride: int, unit: Unit, bos: bool, join: Join
) -> Iterator[Window]:
    rows = data.column(data.source.text or "text")
    names, texts = data.ids(), rows
    if join != "none":
        names, texts = [data.split], [("" if join == "rows" else "\n\n").join(rows)]
    tokens = encode(tokenizer, texts, special=False)
    longest = max(map(len, tokens), default=0)
    if longest < context:
        raise BadInput(
            f"dataset {data.source.title} is shorter than the context: its longest text has {longest} tokens of this "
            f"model and context={context}; it takes a context of at most {longest}"
        )
    prefix = prefix_token(tokenizer) if bos else None
    for name, text, whole in zip(names, texts, tokens, strict=True):
        each = _size(text, unit) / len(whole) if unit != "token" and len(whole) else 1.0
        for start, first, stop in cut(len(whole), context, stride, first=0 if bos else 1):
            before = whole[max(start - 1, 0) : start] if prefix is None else np.array([prefix], dtype=np.int32)
            block = name if join == "none" else f"{name}:{start // BLOCK * BLOCK}"
            part = np.concatenate((before, whole[start:stop]))
            yield Window(f"{name}:{start}", block, part, stop - first, each * (stop - first))


def _size(text: str, unit: Unit) -> int:
    return max(1, len(text.split())) if unit == "word" else len(text.encode())


def cut(length: int, context: int, stride: int, first: int = 0) -> Iterator[tuple[int, int, int]]:
    """(start, first scored, stop) of the windows of a text: together the scored ranges are [first, length), once each.

    >>> list(cut(10, context=4, stride=3))
    [(0, 0, 4), (3, 4, 7), (6, 7, 10)]
    """
    for start in range(0, max(length - context, 0) + stride, stride):
        stop = min(start + context, length)
        if first < stop:
            yield start, first, stop
        first = max(first, stop)


def spread(items: list, *limits: int | None) -> list:
    """At most as many items as the smallest limit, evenly spread over all of them."""
    most = min((limit for limit in limits if limit is not None), default=len(items))
    if most >= len(items):
        return items
    return [items[math.floor(i * len(items) / most)] for i in range(most)]
