"""One view of every kind of layer: matrices (outputs m x inputs n) that multiply rows of inputs.

A convolution's kernel is flattened to channels * height * width and its inputs to patches (im2col); each group of a
grouped convolution is a matrix with inputs of its own. Hugging Face's Conv1D stores its weight transposed.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def matrix(layer: nn.Module) -> Tensor:
    """The weight (m, n) as float32, rows contiguous; it shares memory with the layer's where it can."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    weight = weight.detach().float()
    return weight.T.contiguous() if _is_conv1d(layer) else weight.flatten(1)


def set_matrix(layer: nn.Module, values: Tensor) -> None:
    """Give the layer another weight (m, n), in its own dtype. The old one is not overwritten."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    values = values.T.contiguous() if _is_conv1d(layer) else values.view(weight.shape)
    weight.data = values.to(weight)


def groups(layer: nn.Module) -> int:
    """Matrices that the layer consists of: the groups of a convolution, else 1."""
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def rows(layer: nn.Module, x: Tensor, *, mask: Tensor | None = None, group: int = 0) -> Tensor:
    """The layer's input as rows (tokens, n) float32, those of one convolution group.

    `mask` (batch, tokens) bool: the tokens that are no padding; the others are dropped where `x` has that layout.
    """
    if isinstance(layer, nn.Conv2d):
        width = layer.in_channels // layer.groups
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x[:, group * width : (group + 1) * width], layer._reversed_padding_repeated_twice, mode=mode)
        patches = F.unfold(x, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
        return patches.mT.flatten(0, 1).float()
    if mask is not None and x.shape[:-1] == mask.shape:
        return x[mask].float()
    return x.flatten(0, -2).float()


def _is_conv1d(layer: nn.Module) -> bool:
    """Known by its name, so that a vision model does not import transformers."""
    return type(layer).__name__ == "Conv1D"
