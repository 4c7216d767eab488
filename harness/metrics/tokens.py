"""Text to token ids, many texts at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

AT_ONCE = 256
"""Texts a call: more of them take twice as long each, because what the tokenizer says of them leaves the cache."""


def encode(tokenizer: Any, texts: Sequence[str], *, special: bool) -> list[np.ndarray]:
    """The ids of each text as int32, with the tokenizer's special tokens or without any.

    A text that begins with the beginning-of-sequence token written out does not get a second one.
    """
    beginning = tokenizer.decode([prefix_token(tokenizer)])
    marked = [special and not (beginning and text.startswith(beginning)) for text in texts]
    result: list[np.ndarray] = [np.empty(0, np.int32)] * len(texts)
    for value in set(marked):
        chosen = [i for i, mark in enumerate(marked) if mark == value]
        for start in range(0, len(chosen), AT_ONCE):
            where = chosen[start : start + AT_ONCE]
            batch = tokenizer(
                [texts[i] for i in where],
                add_special_tokens=value,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )
            for i, ids in zip(where, batch["input_ids"], strict=True):
                result[i] = np.array(ids, dtype=np.int32)
    return result


def prefix_token(tokenizer: Any) -> int:
    """What a text without a context is conditioned on: the beginning-of-sequence token, or else the end-of-sequence
    token, as lm-eval does."""
    bos = tokenizer.bos_token_id
    return int(tokenizer.eos_token_id if bos is None else bos)
