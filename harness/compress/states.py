"""Hidden states of the calibration data on their way from block to block, and the calls they are part of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import TrialFailed


@dataclass(frozen=True)
class Call:
    """How a module is called on one batch, `module(*args, **kwargs)`, and what it gave, where that is known."""

    args: tuple
    kwargs: dict[str, Any]
    output: Any = None

    def __call__(self, module: nn.Module) -> Any:
        return module(*self.args, **self.kwargs)

    @property
    def hidden(self) -> Tensor:
        """The hidden states, images or tokens that the module works on: its first argument."""
        return self.args[0] if self.args else self.kwargs[self._key]

    def on(self, hidden: Any) -> Call:
        """The same call with other hidden states."""
        if self.args:
            return replace(self, args=(hidden, *self.args[1:]))
        return replace(self, kwargs={**self.kwargs, self._key: hidden})

    @property
    def _key(self) -> str:
        return "hidden_states" if "hidden_states" in self.kwargs else next(iter(self.kwargs))


class States:
    """What the blocks are called with, batch by batch: always those of one block, `at`.

    `hidden` went through the compressed blocks before it, `original` (if it is followed) through the original ones.
    """

    def __init__(self, calls: list[list[Call]]):
        """`calls` [batch][block], of which only the first block's hidden states are right."""
        self.at = 0
        self.hidden = [of_batch[0].hidden for of_batch in calls]
        self.original: list[Tensor] | None = None
        self._templates = [[call.on(None) for call in of_batch] for of_batch in calls]

    def calls(self, *, original: bool = False) -> list[Call]:
        hidden = self.original if original else self.hidden
        assert hidden is not None
        return [of_batch[self.at].on(h) for of_batch, h in zip(self._templates, hidden, strict=True)]

    def follow_original(self) -> None:
        self.original = list(self.hidden)

    @torch.no_grad()
    def advance(self, block: nn.Module, original: nn.Module | None, enter: Callable[[Tensor], Tensor]) -> None:
        """Go through one block; `enter` makes its output the next block's input."""
        for module, hidden in ((block, self.hidden), (original, self.original)):
            if module is not None and hidden is not None:
                # One batch after the other, so that there is never more than one set of states.
                for i, template in enumerate(self._templates):
                    hidden[i] = enter(first(template[self.at].on(hidden[i])(module)))
        self.at += 1


def first(output: Any) -> Tensor:
    """The hidden states in what a block returns: a tensor, or the first of a tuple."""
    return output[0] if isinstance(output, tuple | list) else output


def capture(
    model: nn.Module, blocks: Sequence[nn.Module], batches: Sequence[dict[str, Any]], *, chained: bool
) -> list[list[Call]]:
    """How each block is called on each batch, [batch][block], without running any block.

    Masks and position embeddings can differ between blocks, so all of them are asked; the hidden states of the first
    one only are right. Not `chained`: the blocks after the first take hidden states and nothing else.
    """
    reached = blocks if chained else blocks[:1]
    later = [] if chained else [Call((None,), {})] * (len(blocks) - 1)
    calls: list[list[Call]] = []
    with _stand_ins(reached, calls):
        for batch in batches:
            calls.append([])
            with contextlib.suppress(Stop):
                model(**batch)
            if len(calls[-1]) != len(reached):
                raise TrialFailed(f"the model called {len(calls[-1])} of its {len(reached)} blocks")
            calls[-1] += later
    return calls


class Stop(Exception):
    """Ends a forward pass when all that was wanted is there."""


@contextlib.contextmanager
def _stand_ins(blocks: Sequence[nn.Module], calls: list[list[Call]]) -> Iterator[None]:
    """Within: each block notes how it is called and hands its input on; the last one ends the pass."""

    def stand_in(number: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if number != len(calls[-1]):
                raise TrialFailed(f"the model calls block {number} in place of block {len(calls[-1])}")
            calls[-1].append(Call(args, kwargs))
            if number + 1 == len(blocks):
                raise Stop
            return calls[-1][-1].hidden

        return forward

    for number, block in enumerate(blocks):
        block.forward = stand_in(number)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
