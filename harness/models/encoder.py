"""Sentence embeddings from an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def encode(
    model: nn.Module, tokenizer: Any, sentences: Sequence[str], *, batch_size: int = 64, max_length: int = 256
) -> Tensor:
    """Embeddings (N, d) of unit length: the mean of a sentence's last hidden states (Reimers and Gurevych 2019).

    Sentences are cut at `max_length` tokens and batched by length; the result is in the order given.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    parts = []
    for start in range(0, len(order), batch_size):
        texts = [sentences[i] for i in order[start : start + batch_size]]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt").to(device)
        hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        parts.append(nn.functional.normalize(mean, dim=-1).cpu())
    inverse = torch.tensor(order).argsort()
    return torch.cat(parts)[inverse]
