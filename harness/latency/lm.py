"""A causal language model whose layers are stored in a format, timed: its first token, and every one after it.

The model is put together block by block from random weights in that format; nothing of it is ever there in float32 but
its norms. Embeddings and head are kept in bfloat16, as checkpoints store them. Activations are float32 on a CPU and
bfloat16 on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import BadInput
from harness.latency import weights
from harness.latency.ceilings import activations
from harness.latency.rounds import Phases, Timer, wall_seconds
from harness.latency.shapes import skeleton
from harness.packed import CompressedLinear, Dense
from harness.packed.linear import view_shape

Make = Callable[[int, int], CompressedLinear]


@dataclass
class Decoding:
    """One contender: a model, and a prompt (rows, length) of token ids.

    Calling it is a turn: the seconds until the first token (`first`), and the median seconds of each of the `tokens`
    after it (`token`), every one chosen greedily and fed back with the keys and values that are kept.
    """

    model: nn.Module
    prompt: Tensor
    tokens: int
    timer: Timer = wall_seconds

    @torch.inference_mode()
    def __call__(self) -> Phases:
        output: Any = None

        def step() -> None:
            nonlocal output
            past = {} if output is None else {"past_key_values": output.past_key_values}
            ids = self.prompt if output is None else output.logits[:, -1:].argmax(-1)
            output = self.model(input_ids=ids, use_cache=True, logits_to_keep=1, **past)

        first = self.timer(step)
        return {"first": first, "token": float(np.median([self.timer(step) for _ in range(self.tokens)]))}


def build(name: str, layers: int | None, make: Make, generator: torch.Generator, device: str) -> nn.Module:
    """The model with the layers of its blocks made by `make`. Raises BadInput for one that is no language model."""
    model, family = skeleton(name, layers)
    if getattr(model, "get_output_embeddings", lambda: None)() is None:
        raise BadInput(f"problem: model={name!r} is not accepted; it takes a causal language model")
    for block in family.block_names(model):
        for path, layer in _layers(model.get_submodule(block), block):
            _replace(model, path, _with_bias(make(*view_shape(layer)).to(device), layer, activations(device)))
    _fill(model, generator, activations(device))
    return model.to(device).eval()


def _layers(block: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    from harness.models.families import layer_names

    return [(f"{name}.{path}", block.get_submodule(path)) for path in layer_names(block)]


def _with_bias(made: CompressedLinear, layer: Any, dtype: torch.dtype) -> CompressedLinear:
    if getattr(layer, "bias", None) is not None:
        made.bias = nn.Parameter(torch.zeros(made.out_features, dtype=dtype), requires_grad=False)
    return made


def _replace(model: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def _fill(model: Any, generator: torch.Generator, dtype: torch.dtype) -> None:
    """Embeddings and head in bfloat16, one tensor where they are tied; norms and activations in `dtype`."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight
    stored = Dense(_drawn(head.weight.shape, generator))
    table = stored.weight if tied else _drawn(embedding.weight.shape, generator)
    _replace(model, _path(model, head), _with_bias(CompressedLinear(stored, kernel="fastest"), head, dtype))
    embedding.weight = nn.Parameter(table, requires_grad=False)
    embedding.register_forward_hook(lambda module, args, output: output.to(dtype))
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.is_meta:
                module._parameters[name] = nn.Parameter(torch.ones(parameter.shape, dtype=dtype), requires_grad=False)


def _drawn(shape: torch.Size, generator: torch.Generator) -> Tensor:
    rows, columns = shape
    return weights.dense(rows, columns, generator, dtype=torch.bfloat16).weight * 0.02


def _path(model: nn.Module, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)


def compressed(model: nn.Module) -> list[CompressedLinear]:
    """Every layer that is read once a token, the head among them."""
    return [module for module in model.modules() if isinstance(module, CompressedLinear)]


def prompt_of(model: Any, rows: int, length: int, generator: torch.Generator, device: str) -> Tensor:
    """Random token ids (rows, length). Raises BadInput for a prompt that the model has no positions for."""
    most = getattr(model.config, "max_position_embeddings", None)
    if most and length > most:
        raise BadInput(f"problem: prompt={length} is not accepted; the model has {most} positions")
    return torch.randint(model.config.vocab_size, (rows, length), generator=generator).to(device)


def tensor_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers of a model, tied ones once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())
