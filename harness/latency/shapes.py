"""What is timed: one product `4096x4096`, or a language model by a shape's name (`llama-7b`) or a model's.

Only the shapes count: the weights of a model are never read, and are made at random in the format that is timed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput, nearest

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int]
"""(outputs, inputs) of a weight."""
MOST = 1 << 20
"""Of the rows or columns of a product."""
SHAPES: dict[str, dict[str, int]] = {
    "llama-7b": {},
    "llama-13b": {
        "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40,
        "num_key_value_heads": 40,
    },
    "llama-3-8b": {"vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8},
    "llama-70b": {
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
}  # fmt: skip
"""Published shapes of Llama models; what a row leaves out is that of the 7B model."""
_LLAMA_7B = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
}  # fmt: skip


def product_shape(name: str) -> Shape | None:
    """(outputs, inputs) of `4096x4096`; None for a name of another kind. Raises BadInput for a shape without numbers
    or too large."""
    found = re.fullmatch(r"(\d+)x(\d+)", name)
    if found is None:
        return None
    m, n = int(found[1]), int(found[2])
    if not (0 < m <= MOST and 0 < n <= MOST):
        raise BadInput(f"problem: model={name!r} is not accepted; outputs and inputs are from 1 to {MOST}")
    return m, n


def raw_config(name: str, layers: int | None = None) -> dict[str, Any]:
    """The config of a shape or a model, as its file has it, with so many blocks. Reads no weights."""
    if name in SHAPES:
        found: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **_LLAMA_7B}
        found |= SHAPES[name]
    else:
        found = _located(name)
    if layers is not None:
        found = {**found, "layers": layers}
    return found


def _located(name: str) -> dict[str, Any]:
    from harness.models import names
    from harness.models.locate import locate

    try:
        return dict(locate(name).config)
    except BadInput as error:
        known = [*SHAPES, *names()]
        if "/" in name or name in names():
            raise
        hint = nearest(name, known)
        raise BadInput(f"problem: model={name!r} is not accepted; it is no product as 4096x4096, and {hint}") from error


def block_shapes(name: str) -> list[Shape]:
    """Shapes of the layers of a model's first block, in order of execution; the one of a product."""
    if (shape := product_shape(name)) is not None:
        return [shape]
    from harness.models.families import layer_names
    from harness.packed.linear import view_shape

    model, family = skeleton(name, layers=1)
    block = model.get_submodule(family.block_names(model)[0])
    return [view_shape(block.get_submodule(layer)) for layer in layer_names(block)]


def skeleton(name: str, layers: int | None = None) -> tuple[nn.Module, Any]:
    """(the model with its parameters on the meta device, its family). Its buffers are real."""
    import torch

    from harness.models import open_model, streaming
    from harness.models.families import family_of

    if name not in SHAPES:
        handle = open_model(name)
        if not isinstance(handle.config, Mapping):  # a vision model of our own has blocks of unlike shapes
            handle.config = shortened(handle.config, layers)
        return handle.skeleton(), handle.family
    from transformers import LlamaConfig, LlamaForCausalLM

    config = shortened(LlamaConfig(**{k: v for k, v in raw_config(name).items() if k in _LLAMA_7B}), layers)
    with torch.random.fork_rng(devices=[]), streaming.EmptyOnMeta():
        model = LlamaForCausalLM(config)
    streaming.release(model)
    return model.eval().requires_grad_(False), family_of(config)


def shortened(config: Any, layers: int | None) -> Any:
    """A config with the first `layers` blocks; BadInput for more than it has."""
    if layers is None:
        return config
    has = int(config.num_hidden_layers)
    if layers > has:
        raise BadInput(f"problem: layers={layers} is not accepted; the model has {has}")
    config = copy.deepcopy(config)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    return config
