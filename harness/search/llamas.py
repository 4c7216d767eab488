"""Small Llamas of elastic width, feed-forward width and depth, with tied embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import BadInput
from harness.params import Count
from harness.parts.elastic import Choice, ElasticLinear, ElasticRMSNorm, Size, gate, size_of
from harness.search.space import Arch, Genes, Mixture, Space
from harness.tasks import Task

HEAD = 16
"""Channels of an attention head: a width is so many heads."""


def llamas(task: Task, *, width: Count = 48, mlp_dim: Count = 144, layers: Count = 3) -> Space:
    """Three widths (thirds of `width`, in whole heads), three feed-forward widths, and depths of 1 to `layers`."""
    if width % (3 * HEAD):
        raise BadInput(f"llamas: width={width} is not accepted; it takes a multiple of {3 * HEAD}")
    genes = {
        "width": tuple(width * part // 3 for part in (1, 2, 3)),
        "mlp": tuple(dict.fromkeys(max(1, mlp_dim * part // 9) for part in (2, 4, 9))),
        "layers": tuple(range(1, layers + 1)),
    }
    vocabulary = task.classes
    return Space(genes, lambda genes: Decoder(genes, vocabulary), _hidden, _parts)


class Decoder(nn.Module):
    """Embedding, blocks of attention and SwiGLU before which stands an RMS norm each, norm, the embedding again."""

    def __init__(self, genes: Genes, vocabulary: int):
        super().__init__()
        self.genes = genes
        width, mlp, layers = (max(genes[name]) for name in ("width", "mlp", "layers"))
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks: Any = nn.ModuleList(Block(width, mlp) for _ in range(layers))
        self.norm = ElasticRMSNorm(width)
        # A token's embedding must not be small beside the mean over tokens that untrained attention adds to it.
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("o.weight", "down.weight"))
                nn.init.normal_(parameter, std=(width * (2 * layers if residual else 1)) ** -0.5)

    def forward(self, tokens: Tensor, arch: Arch | Mixture | None = None) -> Tensor:
        """(N, L) -> (N, L, vocabulary)."""
        picked: Sequence[Choice] = [len(choices) - 1 for choices in self.genes.values()] if arch is None else arch
        width, mlp, layers = (size_of(c, at) for c, at in zip(self.genes.values(), picked, strict=True))
        table = self.embedding.weight
        table = table[:, :width] if isinstance(width, int) else table * width
        x, angles = F.embedding(tokens, table), rotation(tokens.shape[1])
        for place, block in enumerate(self.blocks):
            weight = gate(layers, place)
            if isinstance(weight, int) and not weight:
                break
            x = block(x, angles, width, mlp, weight)
        return self.norm(x, width) @ table.T


class Block(nn.Module):
    def __init__(self, width: int, mlp: int):
        super().__init__()
        self.norm1, self.norm2 = ElasticRMSNorm(width), ElasticRMSNorm(width)
        self.q, self.k, self.v, self.o = (ElasticLinear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (ElasticLinear(width, mlp, bias=False) for _ in range(2))
        self.down = ElasticLinear(mlp, width, bias=False)

    def forward(self, x: Tensor, angles: Tensor, width: Size, mlp: Size, weight: Size) -> Tensor:
        y = self.norm1(x, width)
        q, k, v = (_heads(layer(y, width)) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(rotated(q, angles), rotated(k, angles), v, is_causal=True)
        x = x + weight * self.o(y.transpose(1, 2).flatten(2), width)
        y = self.norm2(x, width)
        return x + weight * self.down(F.silu(self.gate(y, mlp)) * self.up(y, mlp), width)


def _heads(x: Tensor) -> Tensor:
    """(N, L, D) -> (N, heads, L, HEAD)."""
    return x.unflatten(-1, (-1, HEAD)).transpose(1, 2)


def rotation(length: int) -> Tensor:
    """Angles (L, HEAD / 2) of the rotary positions (Su et al. 2021)."""
    frequencies = 10_000.0 ** (-torch.arange(0, HEAD, 2) / HEAD)
    return torch.arange(length)[:, None] * frequencies


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _hidden(network: nn.Module) -> list[nn.Module]:
    """The first layers of the feed-forward parts."""
    return [module.gate for module in network.modules() if isinstance(module, Block)]


def _parts(network: Any, gene: str, choice: int) -> list[nn.Parameter]:
    """All weights for the width, the feed-forward ones for theirs, and those of as many blocks for a depth."""
    if gene == "width":
        return list(network.parameters())
    if gene == "mlp":
        return [layer.weight for block in network.blocks for layer in (block.gate, block.up, block.down)]
    return [p for block in network.blocks[:choice] for p in block.parameters()]
