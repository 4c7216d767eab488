"""Text that a model generates: the likeliest next token, again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.errors import BadInput
from harness.metrics.subject import Subject

BATCH = 32


def greedy(
    subject: Subject, prompts: Sequence[Sequence[int]], new_tokens: int, ends: Callable[[int], bool] | None = None
) -> list[list[int]]:
    """At most `new_tokens` ids after each prompt; a prompt's end with the first token that `ends` it, which is kept.

    Prompts of one length are run together, without padding, and the whole sequence anew for each token, so that any
    model that gives logits can be measured; for a large one that costs more than keeping keys and values. Raises
    BadInput for a prompt that is empty, or longer than the model's positions leave room for.
    """
    import torch

    longest = max(map(len, prompts), default=1)
    if not all(prompts):
        raise BadInput("a prompt has no tokens; there is nothing to continue")
    if subject.max_length is not None and longest + new_tokens > subject.max_length:
        raise BadInput(
            f"a prompt of {longest} tokens and {new_tokens} new ones do not fit {subject.name or 'the model'}, which "
            f"takes {subject.max_length}"
        )
    found: list[list[int]] = [[] for _ in prompts]
    for length in sorted({len(prompt) for prompt in prompts}):
        same = [at for at, prompt in enumerate(prompts) if len(prompt) == length]
        for start in range(0, len(same), BATCH):
            rows = same[start : start + BATCH]
            ids = torch.tensor([list(prompts[at]) for at in rows])
            open_ = [True] * len(rows)
            for _ in range(new_tokens):
                last = torch.arange(len(rows)) * ids.shape[1] + ids.shape[1] - 1
                tokens = subject.logits({"input_ids": ids}, last).argmax(-1).cpu()
                ids = torch.cat([ids, tokens[:, None]], 1)
                for place, token in enumerate(tokens.tolist()):
                    if open_[place]:
                        found[rows[place]].append(token)
                        open_[place] = not (ends and ends(token))
                if not any(open_):
                    break
    return found
