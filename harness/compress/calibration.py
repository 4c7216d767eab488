"""Calibration data: a random sample of a data set, in batches that the model takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness import data
from harness.errors import BadInput
from harness.metrics.perplexity import LINES
from harness.metrics.tokens import encode, prefix_token

if TYPE_CHECKING:
    from harness.compress.problem import Batch
    from harness.models import ModelHandle

TOKENS = 4096
"""Tokens of a batch of text, at most."""
IMAGES = 64
SENTENCES = 32


def draw(
    handle: ModelHandle,
    *,
    dataset: str,
    split: str | None,
    samples: int,
    length: int,
    generator: torch.Generator,
) -> list[Batch]:
    """`samples` items of a data set, drawn with `generator`.

    For a causal language model, windows of `length` tokens (`_windows`); for an encoder, sentences of at most `length`
    tokens, padded to the longest of their batch; for a vision model, images with their labels. Raises BadInput for a
    data set that is empty, too small, or not of that kind, and for text shorter than the window.
    """
    found = data.load(dataset, split=split)
    if not len(found):
        raise BadInput(f"calibration: dataset {found.source.title} has no rows")
    if handle.kind == "causal-lm":
        windows = _windows(handle, found, samples, length, generator)
        return [{"input_ids": part} for part in windows.split(max(1, TOKENS // length))]
    if handle.kind == "encoder":
        return list(_sentences(handle, found, samples, length, generator))
    return list(_images(handle, found, samples, generator))


def _windows(handle: ModelHandle, found: data.Dataset, samples: int, length: int, generator: torch.Generator) -> Tensor:
    """(samples, length) token ids: the documents in random order, and from each a window at a random place.

    Documents that are too short are passed over; when all have been seen, they are gone through again. A window starts
    with the token that the model's evaluation puts before every window (beginning of sequence) where there is one. Rows
    that are the lines of one text are joined.
    """
    limit = getattr(handle.config, "max_position_embeddings", None)
    if limit and length > limit:
        raise BadInput(f"calibration: length={length} is more than the {limit} positions of model {handle.name}")
    if "input_ids" in found.columns:
        prefix, documents = [], found.column("input_ids")
    else:
        tokenizer = handle.tokenizer
        special = tokenizer.bos_token_id is not None or tokenizer.eos_token_id is not None
        prefix = [prefix_token(tokenizer)] if special else []
        documents = found.column(found.source.text or "text")
        if found.id in LINES:
            documents = ["".join(documents)]
    width = length - len(prefix)
    rows: list[list[int]] = []
    longest = 0
    while len(rows) < samples:
        for number in torch.randperm(len(documents), generator=generator).tolist():
            tokens = documents[number]
            if isinstance(tokens, str):
                tokens = documents[number] = encode(tokenizer, [tokens], special=False)[0].tolist()
            longest = max(longest, len(tokens))
            if len(tokens) >= width and len(rows) < samples:
                start = int(torch.randint(len(tokens) - width + 1, (), generator=generator))
                rows.append([*prefix, *tokens[start : start + width]])
            if len(rows) == samples:
                break
        if not rows:
            raise BadInput(
                f"calibration: dataset {found.source.title} is shorter than the window: its longest text has {longest} "
                f"tokens of model {handle.name} and length={length}"
            )
    return torch.tensor(rows)


def _sentences(
    handle: ModelHandle, found: data.Dataset, samples: int, length: int, generator: torch.Generator
) -> Iterator[Batch]:
    """The texts of all columns that hold text, pooled."""
    import pyarrow as pa

    columns = [field.name for field in found.table.schema if pa.types.is_string(field.type)]
    texts = [text for column in columns for text in found.column(column)]
    chosen = _choose(found, len(texts), samples, "texts", generator)
    for start in range(0, samples, SENTENCES):
        part = [texts[i] for i in chosen[start : start + SENTENCES]]
        tokens = handle.tokenizer(part, padding=True, truncation=True, max_length=length, return_tensors="pt")
        yield dict(tokens)


def _images(handle: ModelHandle, found: data.Dataset, samples: int, generator: torch.Generator) -> Iterator[Batch]:
    column = "img" if "img" in found.columns else "image"
    for missing in {column, "label"} - set(found.columns):
        raise BadInput(f"calibration: dataset {found.source.title} has no column {missing!r}; {handle.name} needs one")
    rows = found.table.take(_choose(found, len(found), samples, "images", generator))
    images, labels = rows.column(column).to_pylist(), rows.column("label").to_pylist()
    for start in range(0, samples, IMAGES):
        part = slice(start, start + IMAGES)
        yield {"pixel_values": handle.preprocess(images[part]), "labels": torch.tensor(labels[part])}


def _choose(found: data.Dataset, count: int, samples: int, what: str, generator: torch.Generator) -> list[int]:
    if samples > count:
        raise BadInput(f"calibration: samples={samples}, but dataset {found.source.title} has {count} {what}")
    return torch.randperm(count, generator=generator)[:samples].tolist()
