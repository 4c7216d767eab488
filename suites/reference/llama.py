"""What the language-model recipes share: a small Llama, its optimizers, its loss, and its scores per token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from harness.train.loop import MakeOptimizer

BOS_ID, EOS_ID = 0, 1


def build(recipe: Mapping[str, Any], generator: torch.Generator, **special: int) -> LlamaForCausalLM:
    """The model with fresh weights: N(0, 0.02), what writes to the residual stream smaller by sqrt(2 * layers)."""
    config = LlamaConfig(
        vocab_size=recipe["vocabulary"],
        hidden_size=recipe["hidden_size"],
        intermediate_size=recipe["intermediate_size"],
        num_hidden_layers=recipe["layers"],
        num_attention_heads=recipe["heads"],
        num_key_value_heads=recipe["key_value_heads"],
        max_position_embeddings=2 * recipe["context"],
        tie_word_embeddings=True,
        bos_token_id=special.get("bos"),
        eos_token_id=special.get("eos"),
        pad_token_id=special.get("eos"),
    )
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = 0.02 / (2 * recipe["layers"]) ** 0.5 if residual else 0.02
            nn.init.normal_(parameter, std=std, generator=generator)
    return model


def optimizers(recipe: Mapping[str, Any]) -> MakeOptimizer:
    """Muon for the matrices inside the blocks (Jordan et al. 2024), AdamW for the embedding and the norms."""

    def make(named: dict[str, nn.Parameter]) -> list[torch.optim.Optimizer]:
        hidden = [p for name, p in named.items() if p.ndim == 2 and "embed" not in name]
        rest = [p for name, p in named.items() if p.ndim != 2 or "embed" in name]
        decay = recipe["weight_decay"]
        return [
            torch.optim.Muon(hidden, lr=recipe["muon_lr"], weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=recipe["adamw_lr"], betas=(0.9, 0.95), weight_decay=0.0),
        ]

    return make


def next_token_loss(model: nn.Module, batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mean cross-entropy, in nats, of batch[:, 1:] given what is before; `batch` is (N, length + 1) token ids."""
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def token_losses(model: nn.Module, rows: np.ndarray, batch: int = 8) -> np.ndarray:
    """Negative log-probability, in nats, of every token after the first of each row: (N, L) -> (N, L - 1)."""
    losses = []
    for part in torch.from_numpy(rows.astype(np.int64)).split(batch):
        logits = model(input_ids=part[:, :-1], use_cache=False).logits.float()
        losses.append(F.cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none"))
    return torch.cat(losses).double().numpy()


def stream_losses(model: nn.Module, tokens: np.ndarray, context: int) -> np.ndarray:
    """`token_losses` of tokens[1:], read in windows of `context` that each begin where the one before ended."""
    starts = range(0, len(tokens) - 1, context)
    whole = np.stack([tokens[s : s + context + 1] for s in starts if s + context < len(tokens)])
    rest = tokens[len(whole) * context :]
    losses = [token_losses(model, whole).ravel()]
    if len(rest) > 1:
        losses.append(token_losses(model, rest[None]).ravel())
    return np.concatenate(losses)
