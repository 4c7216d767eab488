"""Weights as a function of other numbers, which are what trains; folded, the function's values are what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from harness.models.families import layer_names
from harness.models.inside import weight_of


def own_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers and convolutions whose weight is theirs alone: not an output layer that reads the
    embeddings' weight, which a function of its own would untie."""
    tied = getattr(getattr(model, "config", None), "tie_word_embeddings", False)
    return [name for name in layer_names(model) if not (tied and name == "lm_head")]


def reparametrize(model: nn.Module, layers: Iterable[str], make: Callable[[Tensor], nn.Module]) -> list[str]:
    """Let the weight of each named layer be a function of numbers that start where the weight is.

    `make(weight)` gives the function, a module; one with a `right_inverse` starts from that of the weight instead, and
    so keeps what the model computes. The names of the layers.
    """
    done = []
    for name in layers:
        parametrize.register_parametrization(model.get_submodule(name), "weight", make(weight_of(model, name)))
        done.append(name)
    return done


def latent_weight(model: nn.Module, layer: str) -> Tensor:
    """The numbers that the weight of a reparametrized layer is a function of."""
    return cast("Tensor", cast(Any, model.get_submodule(layer)).parametrizations.weight.original)


def fold(model: nn.Module, layers: Iterable[str]) -> None:
    """Keep the function's values and forget the function: the model has the names it had before."""
    for name in layers:
        parametrize.remove_parametrizations(model.get_submodule(name), "weight", leave_parametrized=True)
