"""Influence functions on a linear output layer: which training samples help the loss on other samples.

For a softmax on top of features, the Hessian of the mean cross-entropy in the layer's weights is exact and needs no
second pass through the network: H = mean over samples of (diag(p) - p p^T) (x) f f^T, with a damping added. Features
carry a constant 1 for the bias. One sign convention: `helpfulness` is positive where training on the sample lowers
the validation loss (Koh and Liang 2017, paper key koh2017understanding, eq. 2, gives the negative of it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from harness.errors import BadInput
from harness.tasks import Split, Task

Solver = Literal["direct", "cg", "lissa"]
Product = Callable[[Tensor], Tensor]
LARGEST_DIRECT = 4000
"""Weights of a layer up to which the Hessian is written out."""


@dataclass(frozen=True)
class Layer:
    """What a linear softmax layer sees of samples: `features` (N, L, D) with the constant, `errors` (N, L, C), which
    are the probabilities less the one-hot labels, and `probabilities` (N, L, C). L is 1 but for text."""

    features: Tensor
    errors: Tensor
    probabilities: Tensor

    def gradient(self) -> Tensor:
        """Of the mean loss in the weights: (C, D)."""
        return torch.einsum("nlc,nld->cd", self.errors, self.features) / self.positions

    def products(self, direction: Tensor) -> Tensor:
        """The inner product of each sample's gradient with a direction (C, D): (N,)."""
        return torch.einsum("nlc,cd,nld->n", self.errors, direction, self.features) / self.features.shape[1]

    def hessian_times(self, direction: Tensor, damping: float) -> Tensor:
        """(H + damping I) times a direction (C, D)."""
        moved = self.features @ direction.T
        p = self.probabilities
        moved = p * (moved - (p * moved).sum(-1, keepdim=True))
        return torch.einsum("nlc,nld->cd", moved, self.features) / self.positions + damping * direction

    def hessian(self, damping: float) -> Tensor:
        """(C D, C D), written out."""
        f, p = self.features.flatten(0, 1), self.probabilities.flatten(0, 1)
        classes, width = p.shape[1], f.shape[1]
        curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        full = torch.einsum("nab,nd,ne->adbe", curvature, f, f).reshape(classes * width, classes * width)
        return full / self.positions + damping * torch.eye(classes * width, dtype=f.dtype)

    @property
    def positions(self) -> int:
        return self.features.shape[0] * self.features.shape[1]


def helpfulness(
    train: Layer, validation: Layer, *, solver: Solver = "direct", damping: float = 0.01, steps: int = 50
) -> Tensor:
    """How much training on each sample lowers the mean validation loss: grad_i . (H + damping I)^-1 grad_validation.

    (N,), positive where it helps. `steps` are those of the two iterative solvers.
    """
    gradient = validation.gradient()

    def product(x: Tensor) -> Tensor:
        return train.hessian_times(x, damping)

    if solver == "direct":
        if gradient.numel() > LARGEST_DIRECT:
            raise BadInput(
                f"the output layer has {gradient.numel()} weights; solver=direct takes at most {LARGEST_DIRECT}: use cg"
            )
        solved = torch.linalg.solve(train.hessian(damping), gradient.flatten()).view_as(gradient)
    elif solver == "cg":
        solved = conjugate_gradient(product, gradient, steps)
    else:
        solved = lissa(product, gradient, steps)
    return train.products(solved)


def conjugate_gradient(product: Product, b: Tensor, steps: int, tolerance: float = 1e-10) -> Tensor:
    """x with A x = b for a positive definite A given by its products (Hestenes and Stiefel 1952)."""
    x, residual = torch.zeros_like(b), b.clone()
    direction, size = residual.clone(), residual.square().sum()
    start = float(size)
    for _ in range(steps):
        if float(size) <= tolerance**2 * start:
            break
        moved = product(direction)
        along = size / (direction * moved).sum()
        x, residual = x + along * direction, residual - along * moved
        before, size = size, residual.square().sum()
        direction = residual + size / before * direction
    return x


def lissa(product: Product, b: Tensor, depth: int, scale: float = 25.0) -> Tensor:
    """x with A x = b by the Neumann series h <- b + h - A h / scale, divided by `scale` (Agarwal et al. 2017).

    Converges where every eigenvalue of A is below 2 `scale`.
    """
    h = b
    for _ in range(depth):
        h = b + h - product(h) / scale
    return h / scale


def output_layer(task: Task, model: nn.Module, split: Split, size: int = 256) -> Layer:
    """What the model's last linear layer sees of a split, the model in eval mode: passes that count."""
    head = last_linear(model)
    features: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, args: features.append(args[0].detach()))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = [task.logits(model, inputs) for inputs in split.inputs.split(size)]
    finally:
        handle.remove()
        model.train(training)
    f = torch.cat(features).double()
    p = torch.softmax(torch.cat(logits).double(), -1)
    f = torch.cat([f, torch.ones_like(f[..., :1])], -1)
    f, p = (x if x.ndim == 3 else x.unsqueeze(1) for x in (f, p))
    labels = split.labels.view(len(split), -1, 1)
    return Layer(f, p - torch.zeros_like(p).scatter_(-1, labels, 1.0), p)


def last_linear(model: nn.Module) -> nn.Linear:
    """The model's output layer: its last linear module. BadInput for a model without one."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    found = head or next((module for module in reversed(list(model.modules())) if isinstance(module, nn.Linear)), None)
    if not isinstance(found, nn.Linear):
        raise BadInput(f"influence takes a model that ends in a linear layer; {type(model).__name__} has none")
    return found
