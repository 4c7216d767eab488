"""A space of architectures: genes with their choices, and the network in which they are made."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.parts.elastic import cut

Arch = tuple[int, ...]
"""An architecture: the position of the choice of each gene."""
Mixture = Sequence[Tensor]
"""A weight for every choice of each gene."""
Genes = Mapping[str, tuple]


@dataclass(frozen=True)
class Space:
    """Genes in order, each with its choices from the cheapest to the dearest.

    `make(genes)` is the network in which each gene has these choices: all of them in a supernet, one in a model of one
    architecture. It is called as `network(inputs)`, or `network(inputs, arch)` where `arch` is an `Arch` or a
    `Mixture`. `hidden(network)` lists the modules whose outputs go into a nonlinearity, `parts(network, gene, choice)`
    the parameters that a choice of a gene uses and that depend on the gene.
    """

    genes: Genes
    make: Callable[[Genes], nn.Module]
    hidden: Callable[[Any], list[nn.Module]]
    parts: Callable[[Any, str, Any], list[nn.Parameter]]
    known: dict[Arch, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def largest(self) -> Arch:
        return tuple(len(choices) - 1 for choices in self.genes.values())

    @property
    def smallest(self) -> Arch:
        return tuple(0 for _ in self.genes)

    def __len__(self) -> int:
        return math.prod(len(choices) for choices in self.genes.values())

    def __iter__(self) -> Iterator[Arch]:
        """Every architecture."""
        return itertools.product(*(range(len(choices)) for choices in self.genes.values()))

    def draw(self, generator: torch.Generator) -> Arch:
        """One of all architectures, each as likely."""
        return tuple(int(torch.randint(len(c), (), generator=generator)) for c in self.genes.values())

    def mutate(self, arch: Arch, part: float, generator: torch.Generator) -> Arch:
        """Each gene drawn anew with probability `part`."""
        other, which = self.draw(generator), torch.rand(len(arch), generator=generator) < part
        return tuple(b if drawn else a for a, b, drawn in zip(arch, other, which.tolist(), strict=True))

    def name(self, arch: Arch) -> str:
        """`skip-conv3-zero`: the choices themselves, for tables and records."""
        return "-".join(str(choices[at]) for choices, at in zip(self.genes.values(), arch, strict=True))

    def build(self, arch: Arch) -> nn.Module:
        """The network of one architecture alone, its first weights drawn from torch's global generator."""
        picked = zip(self.genes.items(), arch, strict=True)
        return self.make({gene: (choices[at],) for (gene, choices), at in picked})

    def numbers(self, arch: Arch) -> int:
        """The parameters of one architecture; nothing is allocated."""
        if arch not in self.known:
            with torch.device("meta"):
                self.known[arch] = sum(p.numel() for p in self.build(arch).parameters())
        return self.known[arch]

    def export(self, supernet: nn.Module, arch: Arch) -> nn.Module:
        """The network of one architecture with a copy of its part of the supernet's weights: the same outputs."""
        with torch.random.fork_rng(devices=[]):
            small = self.build(arch)
        return cut(small, supernet)


class Subnet(nn.Module):
    """One architecture inside a supernet, as a module of its own that shares all weights."""

    def __init__(self, supernet: nn.Module, arch: Arch | Mixture):
        super().__init__()
        self.supernet, self.arch = supernet, arch

    def forward(self, inputs: Tensor) -> Tensor:
        return self.supernet(inputs, self.arch)
