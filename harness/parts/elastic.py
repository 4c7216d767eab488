"""Layers whose sizes are chosen per call: the shared weights of a supernet.

A size is a number, and the layer computes with the first so many channels (of a kernel: the centre), or a mask over all
of them, and what is computed in full is multiplied by it. A mask may mix several sizes, each with a weight, which makes
the choice differentiable; a mask of one size gives the same outputs as that size (DARTS-like mixing of slices, as in
FBNetV2, Wan et al. 2020). `cut` copies what a choice uses into a model that has nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = int | Tensor
"""A number of channels, or a mask (channels,) over all of them."""
Choice = int | Tensor
"""The position of a choice, or a weight for each choice (choices,)."""


def size_of(choices: Sequence[int], choice: Choice) -> Size:
    """The size chosen; of weights, the mask in which each size's channels have its weight."""
    if isinstance(choice, int):
        return choices[choice]
    return prefix_mask(choices, choice)


def prefix_mask(choices: Sequence[int], weights: Tensor) -> Tensor:
    """(largest choice,): the sum over choices of their weight on the first so many channels."""
    reach = torch.arange(max(choices))
    covers = torch.stack([(reach < size).to(weights.dtype) for size in choices])
    return weights @ covers


def gate(size: Size, place: int) -> Size:
    """How far what stands at a place takes part: for a number, 1 before it and 0 from it on; else the mask's entry."""
    return int(place < size) if isinstance(size, int) else size[place]


class ElasticLinear(nn.Linear):
    """A linear layer with as many inputs as come and as many outputs as are asked for."""

    def forward(self, x: Tensor, out: Size | None = None) -> Tensor:
        if out is None or isinstance(out, int):
            rows = self.out_features if out is None else out
            bias = None if self.bias is None else self.bias[:rows]
            return F.linear(x, self.weight[:rows, : x.shape[-1]], bias)
        return super().forward(x) * out


class ElasticConv2d(nn.Conv2d):
    """A convolution with stride 1 that keeps the images' size, with chosen outputs and kernel: its centre."""

    def forward(self, x: Tensor, out: Size | None = None, kernel: Size | None = None) -> Tensor:
        weight, largest = self.weight, self.kernel_size[0]
        if isinstance(kernel, int):
            edge = (largest - kernel) // 2
            weight = weight[:, :, edge : largest - edge, edge : largest - edge]
        elif kernel is not None:
            weight = weight * centred(kernel)
        if out is None or isinstance(out, int):
            weight = weight[: self.out_channels if out is None else out, : x.shape[1]]
            return F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2) * out.view(1, -1, 1, 1)


def centred(mask: Tensor) -> Tensor:
    """A mask over kernel sizes as one over the kernel (K, K): each position has that of the kernels which reach it."""
    radius = (torch.arange(len(mask)) - len(mask) // 2).abs()
    reach = torch.maximum(radius[:, None], radius[None, :])
    return mask[(2 * reach).clamp(max=len(mask) - 1)]


class ElasticBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over as many channels as come; running statistics are those of whatever was called last, so they are
    estimated anew (`recalibrate`) for the choice that is kept."""

    def forward(self, x: Tensor, out: Size | None = None) -> Tensor:
        channels = x.shape[1]
        assert self.running_mean is not None
        assert self.running_var is not None
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked or 1) if self.momentum is None else self.momentum
        y = F.batch_norm(
            x, self.running_mean[:channels], self.running_var[:channels], self.weight[:channels],
            self.bias[:channels], self.training, momentum, self.eps,
        )  # fmt: skip
        return y if out is None or isinstance(out, int) else y * out.view(1, -1, 1, 1)


class ElasticRMSNorm(nn.Module):
    """x / rms(x) times a gain, over as many channels as come, or over those of a mask."""

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor, out: Size | None = None) -> Tensor:
        mask = None if out is None or isinstance(out, int) else out
        count = x.shape[-1] if mask is None else mask.sum()
        y = x * torch.rsqrt(x.square().sum(-1, keepdim=True) / count + self.eps) * self.weight[: x.shape[-1]]
        return y if mask is None else y * mask


@torch.no_grad()
def cut(small: nn.Module, large: nn.Module) -> nn.Module:
    """Fill a model with the parts of a larger one's tensors of the same names: the first of every dimension, of a
    kernel the centre. Returns `small`."""
    source = large.state_dict()
    for name, tensor in small.state_dict().items():
        part = source[name]
        for at, length in enumerate(tensor.shape):
            start = (part.shape[at] - length) // 2 if tensor.ndim == 4 and at >= 2 else 0
            part = part.narrow(at, start, length)
        tensor.copy_(part)
    return small


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Estimate the statistics of all batch norms anew, as the mean over batches of inputs; nothing else changes.

    Dropout is off. A model without batch norm is left alone, and no batch goes through it.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return model
    training, momenta = model.training, [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        norm.train()
    for inputs in batches:
        model(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.train(training)
