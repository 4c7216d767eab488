"""Replacing a model's blocks one by one: what goes in and out of them, and fitting a block to what another gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.train import optimizers
from harness.train.loop import Phase, run_phases


@dataclass(frozen=True)
class Call:
    """One call of a block: its arguments and what it gave, (N, L, D)."""

    args: tuple
    kwargs: dict[str, Any]
    output: Tensor

    @property
    def input(self) -> Tensor:
        """The hidden states that went in."""
        return self.args[0] if self.args else self.kwargs["hidden_states"]


def output_of(result: Any) -> Tensor:
    """The hidden states that a block gave; attention gives its weights beside them."""
    return result[0] if isinstance(result, tuple) else result


def record(blocks: Mapping[str, nn.Module], run: Callable[[], Any]) -> dict[str, list[Call]]:
    """The calls of each block while `run()` runs the model, without gradients."""
    calls: dict[str, list[Call]] = {name: [] for name in blocks}

    def hook(name: str) -> Callable[..., None]:
        def seen(module: nn.Module, args: tuple, kwargs: dict[str, Any], result: Any) -> None:
            calls[name].append(Call(args, kwargs, output_of(result).detach()))

        return seen

    handles = [block.register_forward_hook(hook(name), with_kwargs=True) for name, block in blocks.items()]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return calls


def normalized_error(output: Tensor, wanted: Tensor, eps: float = 1e-6) -> Tensor:
    """Mean squared error over the mean square of what is wanted: 0 for equal outputs, about 1 for zeros."""
    return (output - wanted).square().mean() / (wanted - eps).square().mean()


def fit_block(
    block: nn.Module, calls: Sequence[Call], steps: int, *, lr: float, generator: torch.Generator
) -> nn.Module:
    """Train a block in place to give what another gave on the same inputs, by AdamW on the normalized error.

    The calls are gone through in order, again and again. The passes are the caller's to count.
    """

    def loss(model: nn.Module, call: Call, _: torch.Generator) -> Tensor:
        return normalized_error(output_of(model(*call.args, **call.kwargs)), call.output)

    if steps and any(True for _ in block.parameters()):
        block.requires_grad_(True)
        phase = Phase(steps, lambda at: calls[at % len(calls)], loss, optimizers.adamw(lr), name="block")
        run_phases(block, [phase], generator=generator)
    return block.requires_grad_(False)
