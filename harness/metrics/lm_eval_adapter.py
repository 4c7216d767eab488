"""A subject as a model of lm-eval (`lm_eval.api.model.LM`), for its tasks and ours.

It gives the numbers of lm-eval's own `HFLM` (same tokenization, truncation and windows), in less time: texts are
tokenized together, batches are filled by tokens and hold equal lengths, what requests have in common at their
beginning is computed once, and only positions that are scored reach the output layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.errors import BadInput
from harness.metrics.likelihood import log_likelihoods
from harness.metrics.subject import Subject
from harness.metrics.tokens import encode, prefix_token

MAX_LENGTH = 2048
"""Context of a model whose config does not say, as in lm-eval."""
NEW_TOKENS = 256
"""Tokens to generate where a task does not say, as in lm-eval."""


def adapter(subject: Subject, *, budget: int | None = None) -> Any:
    """An `lm_eval.api.model.LM` that scores requests with the subject, at most `budget` tokens a batch."""
    from lm_eval.api.model import LM

    class Adapter(LM):
        tokenizer_name = subject.name

        def loglikelihood(self, requests: list, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            return loglikelihood(subject, [request.args for request in requests], budget=budget)

        def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = False) -> list[float]:
            return rolling(subject, [request.args[0] for request in requests], budget=budget)

        def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
            return generate(subject, [request.args for request in requests])

    return Adapter()


def loglikelihood(
    subject: Subject, pairs: Sequence[tuple[str, str]], *, budget: int | None = None
) -> list[tuple[float, bool]]:
    """Of each (context, continuation): the continuation's log-likelihood, and whether greedy decoding gives it."""
    sequences, scored = tokenize(subject.tokenizer, pairs, subject.max_length or MAX_LENGTH)
    values, greedy = log_likelihoods(subject, sequences, scored, budget=budget)
    return list(zip(values.tolist(), greedy.tolist(), strict=True))


def tokenize(tokenizer: Any, pairs: Sequence[tuple[str, str]], max_length: int) -> tuple[list[np.ndarray], list[int]]:
    """Token ids of context and continuation together, and how many of them are the continuation's.

    As lm-eval does it: blanks at the end of a context move to the continuation, both are tokenized as one text, and the
    context counts as many tokens as it has alone; an empty context is the prefix token. What is longer than the model
    takes loses its beginning. Raises BadInput for a continuation of no token, or longer than the model takes.
    """
    prefix = prefix_token(tokenizer)
    moved = [_move_blanks(*pair) for pair in pairs]
    ids = _encode_once(tokenizer, moved)
    sequences, scored = [], []
    for context, continuation in moved:
        whole = ids[context + continuation, bool(context)]
        if context:
            count = len(whole) - len(ids[context, True])
        else:
            whole = whole if len(whole) and whole[0] == prefix else np.concatenate(([prefix], whole)).astype(np.int32)
            count = len(whole) - 1
        if not 0 < count <= max_length:
            raise BadInput(
                f"a continuation has {count} tokens after {context[-40:]!r}: {continuation[:40]!r}; it takes from 1 to "
                f"{max_length}"
            )
        sequences.append(whole[-(max_length + 1) :])
        scored.append(count)
    return sequences, scored


def _move_blanks(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def _encode_once(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, bool], np.ndarray]:
    """The ids of every text that is needed, each once, by (text, whether there is a context)."""
    wanted = {(context + continuation, bool(context)) for context, continuation in pairs}
    wanted |= {(context, True) for context, _ in pairs if context}
    ids: dict[tuple[str, bool], np.ndarray] = {}
    for special in (True, False):
        keys = [key for key in wanted if key[1] == special]
        ids.update(zip(keys, encode(tokenizer, [text for text, _ in keys], special=special), strict=True))
    return ids


def rolling(subject: Subject, texts: Sequence[str], *, budget: int | None = None) -> list[float]:
    """The log-likelihood of each whole text, in windows as long as the model takes, as lm-eval cuts them."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    length, prefix = subject.max_length or MAX_LENGTH, prefix_token(subject.tokenizer)
    sequences, scored, owner = [], [], []
    for number, tokens in enumerate(encode(subject.tokenizer, texts, special=True)):
        for window in get_rolling_token_windows(tokens.tolist(), prefix, length, context_len=1):
            context, continuation = make_disjoint_window(window)
            sequences.append(np.array([*context, *continuation], dtype=np.int32))
            scored.append(len(continuation))
            owner.append(number)
    values, _ = log_likelihoods(subject, sequences, scored, budget=budget)
    return np.bincount(owner, values, minlength=len(texts)).tolist() if owner else [0.0] * len(texts)


def generate(subject: Subject, requests: Sequence[tuple[str, dict]], *, rows: int = 16) -> list[str]:
    """Greedy continuations of (context, settings), each cut before the first of its stop strings.

    Raises BadInput for settings that ask for sampling or beams.
    """
    results = [""] * len(requests)
    order = sorted(range(len(requests)), key=lambda i: (repr(requests[i][1]), len(requests[i][0])))
    for _, group in itertools.groupby(order, key=lambda i: repr(requests[i][1])):
        members = list(group)
        settings = _greedy_settings(requests[members[0]][1])
        for first in range(0, len(members), rows):
            batch = members[first : first + rows]
            texts = _continue(subject, [requests[i][0] for i in batch], *settings)
            for index, text in zip(batch, texts, strict=True):
                results[index] = text
    return results


def _greedy_settings(settings: dict) -> tuple[list[str], int]:
    """(stop strings, tokens to generate) of a task's generation settings."""
    sampled = settings.get("do_sample") and settings.get("temperature", 1.0) > 0
    if sampled or settings.get("num_beams", 1) != 1:
        raise BadInput(f"generation settings {settings} are not accepted; only greedy decoding is supported")
    until = settings.get("until") or []
    length = next((settings[key] for key in ("max_gen_toks", "max_new_tokens") if key in settings), NEW_TOKENS)
    return ([until] if isinstance(until, str) else list(until)), int(length)


def _continue(subject: Subject, contexts: list[str], until: list[str], length: int) -> list[str]:
    import torch

    tokenizer, longest = subject.tokenizer, (subject.max_length or MAX_LENGTH) - length
    if longest < 1:
        raise BadInput(f"generating {length} tokens leaves no room for a context in {subject.name}")
    ids = [part[-longest:] for part in encode(tokenizer, contexts, special=True)]
    width, pad = max(map(len, ids)), tokenizer.eos_token_id
    tokens = torch.tensor(np.stack([np.pad(part, (width - len(part), 0), constant_values=pad) for part in ids])).long()
    mask = torch.arange(width) >= torch.tensor([[width - len(part)] for part in ids])
    stop = {"stop_strings": until, "tokenizer": tokenizer} if until else {}
    with torch.inference_mode():
        output = subject.model.generate(  # type: ignore[operator]
            tokens.to(subject.device),
            attention_mask=mask.long().to(subject.device),
            max_new_tokens=length,
            do_sample=False,
            pad_token_id=pad,
            **stop,
        )
    texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
    return [text[: min([text.find(word) for word in until if word in text], default=len(text))] for text in texts]
