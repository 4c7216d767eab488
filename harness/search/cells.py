"""A cell of operations, after NAS-Bench-201 (Dong and Yang 2020) but of three nodes: small enough to train all of it.

Edges 0->1, 0->2 and 1->2 each take one of {zero, skip, 1x1 convolution, 3x3 convolution}: 64 architectures. The cell is
repeated with max pooling between, after a stem and before the mean over positions and a linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.params import Count
from harness.parts.elastic import Choice
from harness.search.space import Arch, Genes, Mixture, Space
from harness.tasks import Task

EDGES = ("edge01", "edge02", "edge12")
OPERATIONS = ("zero", "skip", "conv1", "conv3")


def cells(task: Task, *, channels: Count = 8, repeats: Count = 2) -> Space:
    """64 architectures of a cell with three edges."""
    inputs, classes = task.train.inputs.shape[1], task.classes

    def make(genes: Genes) -> nn.Module:
        return CellNet(genes, inputs, classes, channels, repeats)

    return Space(dict.fromkeys(EDGES, OPERATIONS), make, _hidden, _parts)


class CellNet(nn.Module):
    def __init__(self, genes: Genes, inputs: int, classes: int, channels: int, repeats: int):
        super().__init__()
        self.genes = genes
        self.stem = nn.Sequential(nn.Conv2d(inputs, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.cells: Any = nn.ModuleList(
            nn.ModuleDict({edge: _operations(names, channels) for edge, names in genes.items()}) for _ in range(repeats)
        )
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor, arch: Arch | Mixture | None = None) -> Tensor:
        picked: Sequence[Choice] = [len(names) - 1 for names in self.genes.values()] if arch is None else arch
        choice = dict(zip(self.genes, picked, strict=True))
        x = self.stem(x)
        for at, cell in enumerate(self.cells):
            x = F.max_pool2d(x, 2) if at else x
            first = self._edge(cell, "edge01", x, choice)
            x = self._edge(cell, "edge02", x, choice) + self._edge(cell, "edge12", first, choice)
        return self.head(torch.relu(x).mean((2, 3)))

    def _edge(self, cell: Any, edge: str, x: Tensor, choice: dict[str, Choice]) -> Tensor:
        """What an edge's operation, or the weighted sum of its operations, makes of x."""
        names, at = self.genes[edge], choice[edge]
        if isinstance(at, int):
            return _apply(cell[edge], names[at], x)
        return torch.stack([at[i] * _apply(cell[edge], name, x) for i, name in enumerate(names)]).sum(0)


def _operations(names: tuple[str, ...], channels: int) -> nn.ModuleDict:
    """The operations that have weights: ReLU, convolution, batch norm."""

    def convolution(kernel: int) -> nn.Module:
        return nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(channels)
        )

    return nn.ModuleDict({name: convolution(int(name[-1])) for name in names if name.startswith("conv")})


def _apply(operations: nn.ModuleDict, name: str, x: Tensor) -> Tensor:
    if name == "zero":
        return torch.zeros_like(x)
    return x if name == "skip" else operations[name](x)


def _hidden(network: nn.Module) -> list[nn.Module]:
    """The batch norms: what they give goes into a ReLU."""
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def _parts(network: Any, edge: str, name: str) -> list[nn.Parameter]:
    """The weights of one operation of an edge, in every cell."""
    return [p for cell in network.cells if name in cell[edge] for p in cell[edge][name].parameters()]
