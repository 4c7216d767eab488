"""Convolutional networks of elastic width, depth and kernel: stages of residual blocks, in the manner of BigNAS."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.params import Count
from harness.parts.elastic import Choice, ElasticBatchNorm2d, ElasticConv2d, Size, gate, size_of
from harness.search.space import Arch, Genes, Mixture, Space
from harness.tasks import Task


def convs(task: Task, *, width: Count = 8, stages: Count = 2) -> Space:
    """Widths of 1, 1.5 and 2 times `width` (doubled each stage), depths of 1 and 2, kernels of 3 and 5: 12 a stage."""
    inputs, classes = task.train.inputs.shape[1], task.classes
    genes: dict[str, tuple[int, ...]] = {}
    for stage in range(stages):
        base = width * 2**stage
        genes |= {f"width{stage}": (base, base * 3 // 2, base * 2), f"depth{stage}": (1, 2), f"kernel{stage}": (3, 5)}

    def make(genes: Genes) -> nn.Module:
        return ConvNet(genes, inputs, classes)

    return Space(genes, make, _hidden, _parts)


class Block(nn.Module):
    """Convolution and batch norm; `residual`: added to its input."""

    def __init__(self, inputs: int, outputs: int, kernel: int, residual: bool):
        super().__init__()
        self.conv = ElasticConv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = ElasticBatchNorm2d(outputs)
        self.residual = residual

    def forward(self, x: Tensor, out: Size, kernel: Size, weight: Size = 1) -> Tensor:
        y = self.norm(self.conv(x, out, kernel), out)
        return torch.relu(x + weight * y if self.residual else y)


class ConvNet(nn.Module):
    def __init__(self, genes: Genes, inputs: int, classes: int):
        super().__init__()
        self.genes = genes
        widths = [inputs, *(max(genes[name]) for name in genes if name.startswith("width"))]
        self.stages: Any = nn.ModuleList(
            nn.ModuleList(
                Block(b if place else a, b, max(genes[f"kernel{stage}"]), residual=place > 0)
                for place in range(max(genes[f"depth{stage}"]))
            )
            for stage, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor, arch: Arch | Mixture | None = None) -> Tensor:
        picked: Sequence[Choice] = [len(choices) - 1 for choices in self.genes.values()] if arch is None else arch
        pairs = zip(self.genes.items(), picked, strict=True)
        size = {gene: size_of(choices, at) for (gene, choices), at in pairs}
        for stage, blocks in enumerate(self.stages):
            x = F.max_pool2d(x, 2) if stage else x
            for place, block in enumerate(blocks):
                weight = gate(size[f"depth{stage}"], place)
                if place and isinstance(weight, int) and not weight:
                    break
                x = block(x, size[f"width{stage}"], size[f"kernel{stage}"], weight)
        x = x.mean((2, 3))
        return F.linear(x, self.head.weight[:, : x.shape[1]], self.head.bias)


def _hidden(network: nn.Module) -> list[nn.Module]:
    """The batch norms: what they give goes into a ReLU."""
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def _parts(network: Any, gene: str, choice: int) -> list[nn.Parameter]:
    """The weights of the gene's stage; of a depth those of as many blocks."""
    blocks = list(network.stages[int(gene.lstrip("abcdefghijklmnopqrstuvwxyz"))])
    return [p for block in (blocks[:choice] if gene.startswith("depth") else blocks) for p in block.parameters()]
