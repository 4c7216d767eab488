"""Packed weights inside a model: layers that run them, and dense models that take their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import BadInput, nearest
from harness.packed import kernels
from harness.packed.base import PackedWeight, unpack


def multiply(weight: PackedWeight, x: Tensor, kernel: kernels.Choice | None = None) -> Tensor:
    """x (..., n) times the transposed weight, (..., m). Every forward pass of a packed weight goes through here.

    `kernel` is one of `harness.packed.kernels`, by default what the environment variable HARNESS_KERNELS says.
    """
    return kernels.run(weight, x, kernel)


class Stored(nn.Module):
    """The tensors of a packed weight as buffers. Casting the model moves them but leaves their dtypes alone."""

    def __init__(self, packed: PackedWeight):
        super().__init__()
        self.kind, self.meta = packed.kind, packed.meta()
        for name, tensor in packed.tensors().items():
            self.register_buffer(name, tensor)
        self._current: PackedWeight | None = None
        self._key: tuple[int, ...] = ()

    @property
    def packed(self) -> PackedWeight:
        """The packed weight made of the buffers as they are now."""
        key = tuple(map(id, self._buffers.values()))
        if self._current is None or key != self._key:
            self._current = unpack(self.kind, dict(self.named_buffers()), self.meta)
            self._key = key
        return self._current

    def _apply(self, fn: Any, recurse: bool = True) -> Stored:
        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, recurse)

    def extra_repr(self) -> str:
        return repr(self.packed)


class CompressedLinear(nn.Module):
    """x (..., n) to (..., m): what nn.Linear does, from a packed weight.

    The fastest kernel available runs it, `runs_on` says which; the attribute `kernel` pins it ("reference", "int8").
    """

    def __init__(self, packed: PackedWeight, bias: Tensor | None = None, kernel: kernels.Choice | None = None):
        super().__init__()
        self.kernel = None if kernel is None else kernels.checked(kernel, "kernel")
        self.weight = Stored(packed)
        self.bias = _parameter(bias)
        self.out_features, self.in_features = packed.shape

    def forward(self, x: Tensor) -> Tensor:
        y = multiply(self.weight.packed, x, self.kernel)
        return y if self.bias is None else y + self.bias

    @property
    def runs_on(self) -> str:
        """The kernel that runs this layer where it is, in words."""
        return kernels.name(self.weight.packed, self.kernel)

    def extra_repr(self) -> str:
        return self.runs_on


class CompressedConv2d(nn.Module):
    """What `like` does, from a packed weight (out channels, in channels / groups * height * width).

    Without groups each patch of the image is one input row of `multiply`; a grouped convolution runs on the
    dequantized weight.
    """

    def __init__(self, packed: PackedWeight, bias: Tensor | None, like: nn.Conv2d):
        super().__init__()
        self.weight = Stored(packed)
        self.bias = _parameter(bias)
        self.kernel_size, self.stride, self.dilation = like.kernel_size, like.stride, like.dilation
        self.groups = like.groups
        self.pad = list(like._reversed_padding_repeated_twice)
        self.pad_mode = "constant" if like.padding_mode == "zeros" else like.padding_mode

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.pad, mode=self.pad_mode)
        packed = self.weight.packed
        if self.groups > 1:
            kernel = packed.dequantize().to(x.dtype).unflatten(1, (-1, *self.kernel_size))
            return F.conv2d(x, kernel, self.bias, self.stride, 0, self.dilation, self.groups)
        patches = F.unfold(x, self.kernel_size, self.dilation, 0, self.stride)
        y = multiply(packed, patches.mT).mT
        y = y if self.bias is None else y + self.bias[:, None]
        return y.unflatten(-1, self._output_size(x.shape[-2:]))

    def _output_size(self, image: torch.Size) -> tuple[int, ...]:
        spans = zip(image, self.kernel_size, self.dilation, self.stride, strict=True)
        return tuple((size - dilation * (kernel - 1) - 1) // stride + 1 for size, kernel, dilation, stride in spans)


def replace_layers(
    model: nn.Module, packed: Mapping[str, PackedWeight], changed: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Put packed weights in the place of nn.Linear, nn.Conv2d and Hugging Face Conv1D layers, in place.

    `changed` are other tensors by parameter name. Raises BadInput for a name that the model does not have, a layer
    that is none of these, and a shape that differs; nothing is replaced then.
    """
    layers = {name: _layer(model, name, weight) for name, weight in packed.items()}
    _set_changed(model, changed or {})
    for name, layer in layers.items():
        weight: Any = packed[name] if layer.weight.is_meta else packed[name].to(layer.weight.device)
        bias: Any = layer.bias
        parent, _, child = name.rpartition(".")
        new = CompressedConv2d(weight, bias, layer) if isinstance(layer, nn.Conv2d) else CompressedLinear(weight, bias)
        setattr(model.get_submodule(parent), child, new.train(layer.training))
    return model


def dense_weights(
    model: nn.Module, packed: Mapping[str, PackedWeight], changed: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Write the values of packed weights into an ordinary model, in place, to evaluate its quality at full speed.

    A weight that was tied to another one no longer is. `changed` and errors are those of `replace_layers`.
    """
    layers = {name: _layer(model, name, weight) for name, weight in packed.items()}
    _set_changed(model, changed or {})
    for name, layer in layers.items():
        values = packed[name].dequantize()
        _set(layer, "weight", values.T.contiguous() if _is_conv1d(layer) else values.view(layer.weight.shape))
    return model


def view_shape(layer: nn.Module) -> tuple[int, int]:
    """(m, n) of the 2-D view of a layer's weight. Raises BadInput for a layer whose weight is no such matrix."""
    weight = getattr(layer, "weight", None)
    if isinstance(layer, nn.Linear) and isinstance(weight, Tensor):
        return weight.shape[0], weight.shape[1]
    if isinstance(layer, nn.Conv2d):
        return layer.weight.shape[0], layer.weight[0].numel()
    if _is_conv1d(layer) and isinstance(weight, Tensor):
        return weight.shape[1], weight.shape[0]
    raise BadInput(f"{type(layer).__name__} cannot be compressed; accepted are nn.Linear, nn.Conv2d and Conv1D")


def _is_conv1d(layer: nn.Module) -> bool:
    """Known by its name, so that a vision model does not import transformers."""
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf")


def _layer(model: nn.Module, name: str, packed: PackedWeight) -> Any:
    layer = _module(model, name)
    if layer is None or not name:
        known = [n for n, module in model.named_modules() if isinstance(getattr(module, "weight", None), Tensor)]
        raise BadInput(f"packed layer {name!r} is not in the model; {nearest(name, known)}")
    try:
        shape = view_shape(layer)
    except BadInput as error:
        raise BadInput(f"packed layer {name}: {error}") from None
    if shape != packed.shape:
        raise BadInput(f"packed layer {name} has shape {packed.shape}; the model's has {shape}")
    return layer


def _module(model: nn.Module, name: str) -> Any:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _set_changed(model: nn.Module, changed: Mapping[str, Tensor]) -> None:
    """All of them, or none and BadInput. A bias may be new where the layer has a place for one."""
    places = []
    for name, values in changed.items():
        module, tensor = _module(model, name.rpartition(".")[0]), name.rpartition(".")[2]
        if module is None or tensor not in {**module._parameters, **module._buffers}:
            raise BadInput(f"changed tensor {name} is not in the model")
        old = getattr(module, tensor)
        if old is not None and old.shape != values.shape:
            raise BadInput(f"changed tensor {name} has shape {tuple(values.shape)}; the model's has {tuple(old.shape)}")
        places.append((module, tensor, values))
    for module, tensor, values in places:
        _set(module, tensor, values)


@torch.no_grad()
def _set(module: Any, name: str, values: Tensor) -> None:
    """Replace a parameter or buffer, never overwrite it: it may be tied to one that stays as it is."""
    old = getattr(module, name)
    like = module.weight if old is None else old
    if not like.is_meta:
        values = values.to(like)
    if name in module._buffers:
        module._buffers[name] = values.clone()
    else:
        frozen = old is None or not old.requires_grad
        module._parameters[name] = nn.Parameter(values.clone(), requires_grad=not frozen)


def _parameter(tensor: Tensor | None) -> nn.Parameter | None:
    if tensor is None or isinstance(tensor, nn.Parameter):
        return tensor
    return nn.Parameter(tensor, requires_grad=False)
