"""A module without its weights, and the weights of any part of it read into place from a checkpoint.

Walking a model block by block (fill a block, use it, release it) needs the memory of one block, so a model larger than
memory can be processed on one machine.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.errors import BadInput
from harness.models.weights import Weights


class EmptyOnMeta(TorchFunctionMode):
    """Inside it `torch.empty` takes no memory.

    Large weights are allocated empty and then initialised, which costs nothing on the meta device. Everything else is
    computed as usual, so buffers that no checkpoint stores (the frequencies of rotary embeddings) are right.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **{**kwargs, "device": "meta"} if func is torch.empty else kwargs)


@dataclass(frozen=True)
class Layout:
    """How a module's tensors are called in a checkpoint.

    `tied`: for a tensor that has several names in the module, all of them. `base`: the base model's attribute with its
    dot, which checkpoints of the bare base model leave out and those of a model with a head have. `renames`: (prefix in
    the module, prefix in the checkpoint).
    """

    tied: dict[str, tuple[str, ...]]
    base: str
    renames: Sequence[tuple[str, str]] = ()

    @staticmethod
    def of(model: nn.Module, renames: Sequence[tuple[str, str]] = ()) -> Layout:
        names: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        tied = {name: tuple(shared) for shared in names.values() if len(shared) > 1 for name in shared}
        base = getattr(model, "base_model_prefix", "")
        return Layout(tied, f"{base}." if base else "", renames)

    def source(self, name: str, weights: Weights) -> str | None:
        """The checkpoint's name of a tensor, or None where it has none."""
        spellings = (spelling for twin in self.tied.get(name, (name,)) for spelling in self._spellings(twin))
        return next((spelling for spelling in spellings if spelling in weights), None)

    def _spellings(self, name: str) -> Iterator[str]:
        yield name
        yield self.base + name
        yield name.removeprefix(self.base)
        for here, there in self.renames:
            if name.startswith(here):
                yield there + name.removeprefix(here)
        if "LayerNorm." in name:  # as TensorFlow called them
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            yield old
            yield self.base + old


def missing(module: nn.Module, prefix: str, weights: Weights, layout: Layout) -> list[str]:
    """Full names of the tensors of a module that the checkpoint lacks; `prefix` is the module's own name.

    A buffer of integers or of truth values (a counter, a mask) is made by the module itself.
    """
    lacking = [name for name in module.state_dict() if layout.source(_join(prefix, name), weights) is None]
    buffers = {name for name, buffer in module.named_buffers() if not buffer.is_floating_point()}
    return [_join(prefix, name) for name in lacking if name not in buffers]


def fill(module: nn.Module, prefix: str, weights: Weights, layout: Layout, device: str | torch.device) -> None:
    """Read a module's tensors from a checkpoint into place, as float32. Tensors tied inside the module stay tied.

    Raises BadInput for a tensor that is missing, has another shape than the module's, or is not finite.
    """
    lacking = missing(module, prefix, weights, layout)
    if lacking:
        raise BadInput(f"{weights.files[0].parent}: its weights lack {lacking[0]} ({len(lacking)} tensors are missing)")
    places: dict[str, list[str]] = {}
    for name in module.state_dict():
        source = layout.source(_join(prefix, name), weights)
        if source is not None:
            places.setdefault(source, []).append(name)
    for source, tensor in weights.read(places):
        refuse_nonfinite(tensor, source, weights[source].file)
        # A copy: the tensor read is a view of its file.
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        _assign(module, places[source], tensor.to(device, dtype, copy=True), f"{weights[source].file}: tensor {source}")


def _assign(module: nn.Module, names: Sequence[str], tensor: Tensor, title: str) -> None:
    parameter = nn.Parameter(tensor, requires_grad=False)
    for name in names:
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        held = getattr(owner, leaf)
        if held.shape != tensor.shape:
            raise BadInput(f"{title} has shape {list(tensor.shape)}; the config asks for {list(held.shape)}")
        if isinstance(held, nn.Parameter):
            owner._parameters[leaf] = parameter
        else:
            owner._buffers[leaf] = tensor


def release(module: nn.Module) -> None:
    """Put a module's parameters on the meta device, those that are shared still shared. Buffers stay."""
    moved: dict[int, nn.Parameter] = {}
    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None:
                if id(parameter) not in moved:
                    moved[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
                child._parameters[name] = moved[id(parameter)]
    _give_back_memory()


def _give_back_memory() -> None:
    """glibc keeps freed blocks of up to 32 MiB for itself: walking a model would hoard most of it."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def refuse_nonfinite(tensor: Tensor, name: str, file: Path) -> None:
    """Raise BadInput where a tensor holds a number that is not finite."""
    if tensor.is_floating_point() and tensor.numel():
        low, high = torch.aminmax(tensor)
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise BadInput(f"{file}: tensor {name} holds a number that is not finite (NaN or infinity)")


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
