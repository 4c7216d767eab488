"""The block-by-block driver: compress a block, run the calibration data through it, go on to the next.

Every layer sees the inputs that it will have in the compressed model: those after the compressed blocks before it and,
inside its block, after the groups before it were replaced ("true sequential"). Nothing runs before somebody asks for
inputs, and only the states between two blocks are kept. A model whose weights are on the meta device is read from its
checkpoint one block at a time, so it may be larger than memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.compress.block import Block
from harness.compress.problem import CompressProblem, LayerProblem
from harness.compress.states import Call, States, capture
from harness.errors import BadInput, nearest
from harness.models.families import is_layer
from harness.solution import Solution

if TYPE_CHECKING:
    from harness.packed import PackedWeight


def walk_blocks(problem: CompressProblem, *, paired: bool = False) -> Iterator[Block]:
    """The model's blocks in order of execution; use each before going on to the next.

    `paired`: follow the states of the original model as well. They are followed anyway when they are first asked for in
    the first block. Raises BadInput for a weight that is not finite, for a name in `problem.layers` that is not a layer
    inside a block, and, when inputs are asked for, without calibration data.
    """
    walk = Walk(problem)
    if paired:
        walk.follow_original()
    for block in walk.blocks:
        walk.enter(block)
        yield block
        walk.leave(block)


def compress_layers(
    problem: CompressProblem,
    compress: Callable[[LayerProblem], PackedWeight],
    *,
    store: Callable[[Solution], object] | None = None,
) -> Solution:
    """Compress every layer with a function of one layer, block by block.

    The log holds for each layer the squared error of its weight relative to the weight, and what the function noted in
    `layer.log`. `store` (a `ShardWriter`'s `write`) is given the solution of each block, whose weights are then not
    kept. Raises as `walk_blocks` does.
    """
    solution = Solution({})
    for block in walk_blocks(problem):
        part = Solution({})
        for group in block.groups:
            for layer in group:
                values = block.set(layer.name, compress(layer))
                part.log[layer.name] = {"weight_error": _relative_error(layer.weight, values), **layer.log}
        part.packed |= block.packed
        if store is None:
            solution.packed |= part.packed
        else:
            store(part)
        solution.log |= part.log
    return solution


def refuse_nonfinite(module: nn.Module, name: str = "") -> None:
    """Raise BadInput for a weight that holds a number that is not finite; `name` is the module's own."""
    for tensor, parameter in module.named_parameters(prefix=name):
        if not parameter.is_meta and not torch.isfinite(parameter).all():
            raise BadInput(f"tensor {tensor} holds a number that is not finite (NaN or infinity)")


class Walk:
    """One pass over the model: its blocks, and how far the calibration data has come."""

    def __init__(self, problem: CompressProblem):
        self.problem = problem
        self.model, self.handle, self.family = problem.model, problem.handle, problem.handle.family
        names = self.family.block_names(self.model)
        self.blocks = [Block(self, i, name, self.model.get_submodule(name)) for i, name in enumerate(names)]
        self._states: States | None = None
        self._following = False
        self._left = 0
        self._require_known_layers()

    def compresses(self, name: str) -> bool:
        return self.problem.layers is None or name in self.problem.layers

    def generator(self, name: str) -> torch.Generator:
        """A layer's own, so that what it draws does not depend on the order in which layers are compressed."""
        given = self.problem.generator
        digest = hashlib.sha256(f"{given.initial_seed()} {name}".encode()).digest()
        return torch.Generator(given.device).manual_seed(int.from_bytes(digest[:7], "little"))

    @property
    def masks(self) -> list[Tensor | None]:
        """Which tokens of each batch are no padding."""
        masks = [batch.get("attention_mask") for batch in self.problem.calibration]
        return [None if mask is None else mask.bool().to(self.problem.device) for mask in masks]

    def enter(self, block: Block) -> None:
        if _on_meta(block.module):
            self.handle.materialize(block.name, block.module)
            block.streamed = True
        refuse_nonfinite(block.module, block.name)
        if self._following:
            _ = block.original  # copied before anything changes

    def leave(self, block: Block) -> None:
        self._left += 1
        last = self._left == len(self.blocks)
        if block.streamed:
            # What was changed in place is lost on release, so a block whose output will be wanted is run now.
            if self._states is not None and not last:
                self._go_to(self._left)
            self.handle.release(block.module)
            if self._states is not None or not self.problem.calibration:
                block.packed = {}
        if last or block.streamed or not self._following:
            block.forget()
        block.forget_statistics()

    def follow_original(self) -> None:
        """Follow the states of the original model from now on. Raises ValueError after the first block."""
        if self._following:
            return
        if self._left:
            raise ValueError("paired inputs were not asked for in the first block: use walk_blocks(..., paired=True)")
        self._following = True
        if self._states is not None:
            self._states.follow_original()

    def states(self, block: Block) -> States:
        """The states at the input of a block. Raises ValueError when they have gone past it."""
        if self._states is None:
            self._states = States(self._captured())
            if self._following:
                self._states.follow_original()
        if block.index < self._states.at:
            raise ValueError(f"block {block.name}: its inputs are gone; the next block's were asked for")
        self._go_to(block.index)
        return self._states

    def _go_to(self, index: int) -> None:
        assert self._states is not None
        while self._states.at < index:
            block = self.blocks[self._states.at]
            released = _on_meta(block.module)
            if released:
                self.handle.materialize(block.name, block.module)
                for name, packed in block.packed.items():
                    block.set(name, packed)
            original = block.original if self._following else None
            self._states.advance(block.module, original, self._enter(self._states.at + 1))
            if released:
                self.handle.release(block.module)
            block.forget()

    @torch.no_grad()
    def _captured(self) -> list[list[Call]]:
        """How the blocks are called on the calibration data."""
        batches: list[dict[str, Any]] = [
            {key: value.to(self.problem.device) for key, value in batch.items() if key != "labels"}
            for batch in self.problem.calibration
        ]
        if not any(len(value) for batch in batches for value in batch.values()):
            raise BadInput("the calibration data has no rows; give at least one sample")
        if self.handle.kind == "causal-lm":
            batches = [{**batch, "use_cache": False} for batch in batches]
        before = [name for name in self.family.before_names(self.model) if _on_meta(self.model.get_submodule(name))]
        for name in before:
            self.handle.materialize(name, self.model.get_submodule(name))
        modules = [block.module for block in self.blocks]
        calls = capture(self.model, modules, batches, chained=not self.family.enter)
        if not self.family.enter:
            for name in before:
                self.handle.release(self.model.get_submodule(name))
        return calls

    def _enter(self, index: int) -> Callable[[Tensor], Tensor]:
        """What makes the output of the block before this one its input."""
        prefix = self.family.prefix(self.model)
        name = self.family.enter.get(self.blocks[index].name.removeprefix(prefix))
        return getattr(self.model.get_submodule(prefix.rstrip(".")), name) if name else lambda hidden: hidden

    def _require_known_layers(self) -> None:
        inside = [
            f"{block.name}.{name}".strip(".")
            for block in self.blocks
            for name, module in block.module.named_modules()
            if is_layer(module)
        ]
        for name in self.problem.layers or ():
            if name not in inside:
                raise BadInput(f"layers: {name!r} is not a layer of a block; {nearest(name, inside)}")


def _on_meta(module: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in module.parameters())


def _relative_error(weight: Tensor, values: Tensor) -> float:
    error = (values - weight).square().sum(dtype=torch.float64)
    size = weight.square().sum(dtype=torch.float64)
    return float(error / size) if size else float(error)
