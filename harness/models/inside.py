"""Which layers of a model are its body: those inside a list of blocks, neither its embedding nor its head."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from torch import Tensor, nn

_NUMBERED = re.compile(r"(^|\.)\d+(\.|$)")


def body_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers and convolutions that lie inside a list of modules, in order of registration.

    Blocks are kept in lists, so a layer of one has a number in its name (`layers.3.mlp.up_proj`); an embedding, a patch
    projection or an output head has none.
    """
    from harness.models.families import layer_names

    return [name for name in layer_names(model) if in_body(name)]


def in_body(name: str) -> bool:
    """Whether a module or parameter of that name lies inside a list of modules."""
    return bool(_NUMBERED.search(name))


def weight_of(model: nn.Module, layer: str) -> Tensor:
    """The weight of a layer, by the layer's name."""
    return cast("Tensor", model.get_submodule(layer).weight)


def matrix_shape(weight: Tensor) -> tuple[int, int]:
    """(outputs, inputs) of a weight; a convolution's inputs are channels x kernel."""
    return len(weight), weight[0].numel()
