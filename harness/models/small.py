"""Models made from a task: small networks with fresh weights, named by an expression such as `mlp(width=128, depth=2)`.

The task gives what the expression does not: the shape of the inputs and the number of classes or tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import BadInput, nearest
from harness.params import Count, Expression, Param, bind, complete, parse_expression, signature_params
from harness.tasks.task import Task


class Perceptron(nn.Module):
    """Fully connected layers with ReLU between them, on flattened inputs."""

    def __init__(self, inputs: int, hidden: list[int], classes: int):
        super().__init__()
        sizes = [inputs, *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.head = nn.Linear(sizes[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, ...) -> (N, width): what the head reads."""
        x = x.flatten(1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class ConvNet(nn.Module):
    """3 x 3 convolutions with batch norm and ReLU, halved in size after each, averaged over what is left."""

    def __init__(self, channels: int, width: int, depth: int, classes: int):
        super().__init__()
        sizes = [channels, *(width * 2**at for at in range(depth))]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in itertools.pairwise(sizes)
        )
        self.head = nn.Linear(sizes[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, channels of the last block)."""
        for at, block in enumerate(self.blocks):
            x = block(x if at == 0 or x.shape[-1] < 2 else nn.functional.max_pool2d(x, 2))
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def mlp(task: Task, *, width: Count = 128, depth: Count = 2) -> nn.Module:
    """A perceptron with `depth` hidden layers."""
    return Perceptron(task.train.inputs[0].numel(), [width] * depth, task.classes)


def linear(task: Task) -> nn.Module:
    """A linear classifier."""
    return Perceptron(task.train.inputs[0].numel(), [], task.classes)


def cnn(task: Task, *, width: Count = 16, depth: Count = 3) -> nn.Module:
    """A convolutional network with batch norm."""
    return ConvNet(task.train.inputs.shape[1], width, depth, task.classes)


def vit(
    task: Task, *, dim: Count = 64, depth: Count = 4, heads: Count = 4, mlp_dim: Count = 128, patch: Count = 2
) -> nn.Module:
    """A vision transformer."""
    from harness.models.vision import ViT

    channels, side = task.train.inputs.shape[1:3]
    if side % patch or dim % heads:
        raise BadInput(f"vit: patch={patch} must divide the images' side {side}, and heads={heads} dim={dim}")
    return ViT(
        {"architecture": "vit", "num_classes": task.classes, "patch_size": patch, "dim": dim, "depth": depth,
         "heads": heads, "mlp_dim": mlp_dim, "image_size": side, "image_mean": [0.5] * channels}
    )  # fmt: skip


def resnet(task: Task, *, depth: Count = 3) -> nn.Module:
    """The CIFAR ResNet with `depth` blocks a stage: 3 is ResNet-20."""
    from harness.models.vision import ResNet

    return ResNet({"architecture": "resnet", "num_classes": task.classes}, depth)


def llama(
    task: Task, *, hidden: Count = 64, layers: Count = 2, heads: Count = 4, kv_heads: Count = 2, mlp_dim: Count = 172
) -> nn.Module:
    """A Llama with tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    length = task.train.inputs.shape[1]
    config = LlamaConfig(
        vocab_size=task.classes, hidden_size=hidden, intermediate_size=mlp_dim, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=2 * length,
        tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


BUILDERS: dict[str, tuple[str, Callable[..., nn.Module]]] = {
    "linear": ("vision", linear),
    "mlp": ("vision", mlp),
    "cnn": ("vision", cnn),
    "vit": ("vision", vit),
    "resnet": ("vision", resnet),
    "llama": ("causal-lm", llama),
}
"""Name -> the kind of task it is for, and its builder."""


def is_small(text: str) -> bool:
    """Whether a model's name is an expression of this module rather than a checkpoint's."""
    return isinstance(text, str) and text.partition("(")[0] in BUILDERS


def describe(text: str, kind: str | None = None) -> None:
    """Raises BadInput for an expression that names no builder, or none for that kind of task, or a wrong parameter."""
    _bound(text, kind)


def build(text: str, task: Task, generator: torch.Generator) -> nn.Module:
    """The model of an expression for a task, its weights drawn from the generator."""
    builder, values = _bound(text, task.kind)
    return seeded(lambda: builder(task, **values), generator)


def seeded(make: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """A module whose layers draw their first weights from torch's global generator, drawn from ours."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        return make()


def _bound(text: str, kind: str | None) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    expression: Expression = parse_expression(text)
    if expression.name not in BUILDERS:
        raise BadInput(f"unknown model {text!r}; {nearest(expression.name, BUILDERS)}")
    takes, builder = BUILDERS[expression.name]
    if kind is not None and takes != kind:
        fitting = [name for name, (its, _) in BUILDERS.items() if its == kind]
        raise BadInput(f"model {expression.name} is for tasks of kind {takes}; this one is {kind}; known: {fitting}")
    params: dict[str, Param] = signature_params(builder, expression.name)
    points = list(bind(expression, params, expression.name))
    if len(points) != 1:
        raise BadInput(f"model {text!r} is a grid of {len(points)}; name one model")
    return builder, complete(points[0], params)
