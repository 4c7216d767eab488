"""How many bytes a compressed model takes, all of it counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.packed.base import PackedWeight


def model_size(
    model: nn.Module | Mapping[str, Tensor],
    packed: Mapping[str, PackedWeight],
    changed: Mapping[str, Tensor] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Stored size of a model whose layers `packed` are compressed, and the work that these layers do.

    `model` is the uncompressed one, or its tensors by name; it may be on the meta device. Its floating-point tensors
    count in `dtype`, the checkpoint's storage dtype (by default the dtype they have), `changed` ones in their own.
    Tied tensors count once.

    bits_per_weight: stored bits of the compressed layers over their weights, biases not among them; budget: these bits
    by role; layers_bytes, other_bytes (embeddings, norms, head, biases) and their sum model_bytes;
    uncompressed_bytes: model_bytes before; model_bits_per_parameter: over the numbers that the uncompressed model has;
    multiply_adds, and dense_multiply_adds of the uncompressed layers: executed per input row of each layer.
    """
    changed = changed or {}
    state = model.state_dict(keep_vars=True) if isinstance(model, nn.Module) else model
    gone = {f"{name}.weight" for name in packed} | changed.keys()
    original = _distinct(state).values()
    kept = _distinct({name: tensor for name, tensor in state.items() if name not in gone}).values()
    parameters = sum(tensor.numel() for tensor in original)
    weights = sum(p.shape[0] * p.shape[1] for p in packed.values())
    layers_bits = sum(p.bits for p in packed.values())
    other_bytes = sum(_bytes(tensor, dtype) for tensor in kept) + sum(tensor.nbytes for tensor in changed.values())
    model_bytes = layers_bits // 8 + other_bytes
    return {
        "bits_per_weight": layers_bits / weights if weights else 8 * model_bytes / parameters,
        "model_bits_per_parameter": 8 * model_bytes / parameters,
        "model_bytes": model_bytes,
        "layers_bytes": layers_bits // 8,
        "other_bytes": other_bytes,
        "uncompressed_bytes": sum(_bytes(tensor, dtype) for tensor in original),
        "parameters": parameters,
        "weights": weights,
        "budget": _total(p.budget() for p in packed.values()),
        "multiply_adds": sum(p.multiply_adds for p in packed.values()),
        "dense_multiply_adds": weights,
    }


def _distinct(tensors: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Without the second names of tied tensors."""
    return {id(tensor): tensor for tensor in tensors.values()}


def _bytes(tensor: Tensor, dtype: torch.dtype | None) -> int:
    return tensor.numel() * (dtype if dtype and tensor.is_floating_point() else tensor.dtype).itemsize


def _total(budgets: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for budget in budgets:
        total.update(budget)
    return dict(total)
