"""Synthetic problems of a few kilobytes, for the contract's checks and for tests of methods."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from harness.compress.problem import Batch, CompressProblem, LayerProblem
from harness.models.families import family_of

WIDTH = 128
"""Inputs of a layer: every usual group size divides it."""
LAYER = "layer"


def normal(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers that half precision can hold, so that storing them is exact."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half().float()


def layer_problem(weight: Tensor | None = None, inputs: Tensor | None = None, *, seed: int = 0) -> LayerProblem:
    """A layer (by default 24 x 128) whose calibration inputs (tokens, n) are correlated and of unequal scale.

    The paired inputs, those of the original model, differ from them by a hundredth. `seed` is the method's.
    """
    weight = normal(24, WIDTH, seed=1) if weight is None else weight
    x = correlated(160, weight.shape[1]) if inputs is None else inputs
    twin = x + 0.01 * normal(*x.shape, seed=3)

    def batches() -> Iterator[Tensor]:
        yield from x.split(64)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(x.split(64), twin.split(64), strict=True)

    generator = torch.Generator().manual_seed(seed)
    return LayerProblem(LAYER, weight, generator=generator, inputs=batches, paired=pairs, dtype=torch.float16)


def correlated(tokens: int, width: int) -> Tensor:
    """Inputs (tokens, width) of which neighbours resemble each other and some channels are ten times the others."""
    x = normal(tokens, width, seed=2)
    x = x + 0.5 * x.roll(1, dims=1)
    return x * torch.where(torch.arange(width) % 37 == 5, 10.0, 1.0)


def llama_problem(*, seed: int = 0, **config: Any) -> CompressProblem:
    """A random two-layer Llama of width 128 with eight windows of 16 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 64,
        "max_position_embeddings": 64,
    }
    configuration = LlamaConfig(**{**settings, **config})
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(configuration)
    tokens = torch.randint(64, (8, 16), generator=torch.Generator().manual_seed(4))
    calibration = [{"input_ids": part} for part in tokens.split(3)]
    return _problem(model, configuration, calibration, "causal-lm", next_token_loss, seed)


def next_token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean negative log-likelihood of each token after the first."""
    return model(**batch, labels=batch["input_ids"]).loss


class Network(nn.Module):
    """Two linear layers, of no known family."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.first, self.second = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


def network_problem(
    inputs: int = WIDTH, hidden: int = WIDTH, outputs: int = 24, *, x: Tensor | None = None, seed: int = 0
) -> CompressProblem:
    """A random network of two linear layers, `first` and `second`, with `x` (samples, inputs) as calibration data."""
    with torch.random.fork_rng(devices=[]):
        model = Network(inputs, hidden, outputs)
    x = correlated(96, inputs) if x is None else x
    return _problem(model, None, [{"x": part} for part in x.split(40)], "vision", _mean_square, seed)


def _mean_square(model: nn.Module, batch: Batch) -> Tensor:
    return model(**batch).square().mean()


def _problem(
    model: nn.Module, config: Any, calibration: list[Batch], kind: str, loss: Any, seed: int
) -> CompressProblem:
    model.eval().requires_grad_(False)
    for number, (name, parameter) in enumerate(model.named_parameters()):
        drawn = 0.1 * normal(*parameter.shape, seed=100 + number)
        parameter.copy_((drawn + 1 if "norm" in name else drawn).half())
    handle: Any = SimpleNamespace(
        name="synthetic", kind=kind, family=family_of(config or {}), config=config, dtype=torch.float16
    )
    generator = torch.Generator().manual_seed(seed)
    return CompressProblem(handle, model, calibration, generator, loss=loss)
