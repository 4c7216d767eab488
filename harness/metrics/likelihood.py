"""Log-likelihoods of token sequences under a causal language model: what perplexity and the lm-eval tasks stand on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.metrics.packing import Batch, pack

if TYPE_CHECKING:
    from torch import Tensor

    from harness.metrics.subject import Subject

BUDGET = {"cpu": 2048, "cuda": 32768}
"""Tokens of a batch: on a processor the activations should stay in its cache."""
LOGITS = 2**27
"""Most logits of a batch, whatever the vocabulary (half a gigabyte in float32)."""
CHUNK = 2**20
"""Logits that are normalised at a time, small enough to stay in the cache between one pass and the next."""


def log_likelihoods(
    subject: Subject, sequences: Sequence[np.ndarray], scored: Sequence[int], *, budget: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Of each sequence, the summed log-probability (natural, float64) of its last `scored` tokens given those before
    them, and whether each of these was the likeliest. Both (N,), in the order given, whatever the batches were.

    `sequences` are int32 arrays of at least `scored + 1` tokens. Sequences that begin alike share the computation of
    their common beginning where the model allows it.
    """
    return _run(subject, batches(subject, sequences, scored, budget=budget), len(sequences))


def batches(
    subject: Subject, sequences: Sequence[np.ndarray], scored: Sequence[int], *, budget: int | None = None
) -> list[Batch]:
    """The batches that `log_likelihoods` runs, each at most `budget` tokens."""
    if not len(sequences):
        return []
    if budget is None:
        budget = min(BUDGET.get(subject.device.type, BUDGET["cuda"]), LOGITS // max(1, subject.vocabulary))
    longest = max(map(len, sequences)) - 1
    return pack(sequences, scored, budget, share=_may_share(subject, longest))


def inputs(batch: Batch, dtype: Any) -> dict[str, Tensor]:
    """The forward pass's arguments. A batch in which no row branches needs no mask: padding is on the right, where no
    token sees it."""
    import torch

    tokens = torch.from_numpy(batch.tokens)
    if not batch.tree:
        return {"input_ids": tokens}
    place = torch.arange(tokens.shape[1])
    end = torch.from_numpy(batch.end)
    sees = (place <= place[:, None]) & (place[:, None] < end[:, None, :])
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill_(~sees, torch.finfo(dtype).min)
    return {"input_ids": tokens, "position_ids": torch.from_numpy(batch.depth), "attention_mask": mask[:, None]}


def _run(subject: Subject, packed: Iterable[Batch], count: int) -> tuple[np.ndarray, np.ndarray]:
    total, greedy = np.zeros(count), np.ones(count, dtype=bool)
    for batch in packed:
        values, likeliest = predictions(subject, batch)
        np.add.at(total, batch.owner, values)
        np.logical_and.at(greedy, batch.owner, likeliest)
    return total, greedy


def predictions(subject: Subject, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of each prediction of a batch, and whether it was the likeliest."""
    import torch

    logits = subject.logits(inputs(batch, _dtype(subject)), torch.from_numpy(batch.keep))
    source, target = (torch.from_numpy(part).to(logits.device) for part in (batch.source, batch.target))
    size = max(1, CHUNK // logits.shape[1])
    starts = range(0, len(logits), size)
    cuts = [*np.searchsorted(batch.source, starts), len(batch.source)]
    values, likeliest = [], []
    with torch.inference_mode():
        for start, first, last in zip(starts, cuts, cuts[1:], strict=False):
            chunk, row = logits[start : start + size].float(), source[first:last] - start
            top = chunk.amax(dim=1, keepdim=True)
            below = chunk[row, target[first:last]] - top[row, 0]
            values.append(below - (chunk - top).exp_().sum(dim=1).log_()[row])
            likeliest.append(below >= 0)
        return torch.cat(values).double().cpu().numpy(), torch.cat(likeliest).cpu().numpy()


def _dtype(subject: Subject) -> Any:
    return next(parameter.dtype for parameter in subject.model.parameters() if parameter.is_floating_point())


def _may_share(subject: Subject, longest: int) -> bool:
    """Whether the model honours a mask and positions of ours; found out once, by trying.

    A model with recurrent layers or its own attention kernel does not; nor is the mask right for a window of attention
    that is shorter than the sequences.
    """
    window = getattr(getattr(subject.model, "config", None), "sliding_window", None)
    if window and longest > window:
        return False
    if subject.shares_prefixes is None:
        subject.shares_prefixes = _probe(subject)
    return subject.shares_prefixes


def _probe(subject: Subject) -> bool:
    """Two sequences that begin alike, computed apart and in one row."""
    import torch

    if not subject.vocabulary:
        return False
    ends = [(np.arange(16) * step + 1).astype(np.int32) % subject.vocabulary for step in (3, 5)]
    for end in ends:
        end[:8] = ends[0][:8]
    apart = _run(subject, pack(ends, [8, 8], 64, share=False), 2)[0]
    try:
        together = _run(subject, pack(ends, [8, 8], 64), 2)[0]
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    exact = _dtype(subject) in (torch.float32, torch.float64)
    return np.allclose(apart, together, rtol=0, atol=1e-3 if exact else 0.5)
