"""One block of the model on its way through the driver: its layers, their inputs, and the weights that replace them."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.compress import view
from harness.compress.problem import LayerProblem
from harness.compress.states import Call, Stop
from harness.errors import TrialFailed
from harness.packed import PackedWeight, Rows

if TYPE_CHECKING:
    from harness.compress.walk import Walk


class Block:
    """A block, `module`, of which `set` replaces weights. The batches of the calibration data keep their order."""

    def __init__(self, walk: Walk, index: int, name: str, module: nn.Module):
        self.name = name
        self.index = index
        self.module = module
        self.streamed = False
        """Whether its weights are read from the checkpoint when the walk comes to it, and released after."""
        self.packed: dict[str, PackedWeight] = {}
        """The weights set so far, by full name of the layer; a grouped convolution once all its groups are set."""
        self._walk = walk
        self._parts: dict[str, dict[int, PackedWeight]] = {}
        self.forget()

    def forget(self) -> None:
        """Give back the memory of what the block was before."""
        self.forget_statistics()
        self._replaced: dict[str, Tensor] = {}
        self._original: nn.Module | None = None
        self._kept: tuple[str, list[list[Tensor]]] | None = None

    def forget_statistics(self) -> None:
        self._statistics: dict[tuple[str, int], dict[str, Any]] = {}

    @property
    def groups(self) -> list[list[LayerProblem]]:
        """The layers to compress, in order of execution; those of one group have the same input.

        Each group of a grouped convolution is a layer of its own, named `conv[0]`, `conv[1]`...
        """
        groups = [self._group(names) for names in self._walk.family.layer_groups(self.module)]
        return [group for group in groups if group]

    def calls(self) -> list[Call]:
        """How the block is called on each batch in the compressed prefix; `call(block.module)` runs it."""
        return self._walk.states(self).calls()

    def original_calls(self) -> list[Call]:
        """How the block is called in the original model; `call(block.original)` runs that."""
        self._walk.follow_original()
        return self._walk.states(self).calls(original=True)

    def inputs(self) -> Iterator[Tensor]:
        """The hidden states of each batch in the compressed prefix."""
        return (call.hidden for call in self.calls())

    def paired_inputs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(hidden states in the compressed prefix, those in the original model) of each batch."""
        originals = self.original_calls()
        return ((call.hidden, twin.hidden) for call, twin in zip(self.calls(), originals, strict=True))

    @property
    def original(self) -> nn.Module:
        """A copy of the block as it was before `set`. Ask for it before changing anything by other means."""
        if self._original is None:
            self._original = copy.deepcopy(self.module)
            for local, weight in self._replaced.items():
                layer: Any = self._original.get_submodule(local)
                layer.weight.data = weight
        return self._original

    @torch.no_grad()
    def record(self, *names: str, original: bool = False) -> Iterator[dict[str, Call]]:
        """For each batch: how the modules of these names inside the block are called now, and what they return.

        Of a module that is called more than once, the last call. `original`: in the original model. The first batch is
        run to its end, to see whether each is called once; the others then only as far as is needed.
        """
        module = self.original if original else self.module
        once = False
        for call in self.original_calls() if original else self.calls():
            seen: list[tuple[str, Call]] = []
            enough = len(names) if once else None
            hooks = [_note_call(module.get_submodule(name), name, seen, enough) for name in names]
            try:
                call(module)
            except Stop:
                pass
            finally:
                for hook in hooks:
                    hook.remove()
            once = sorted(name for name, _ in seen) == sorted(names)
            yield dict(seen)

    def set(self, layer_name: str, packed: PackedWeight) -> Tensor:
        """Replace a layer's weight by what `packed` dequantizes to, and return that, (m, n) float32.

        The next inputs that are asked for see it. Raises TrialFailed for another shape than the layer's and for a
        number that is not finite.
        """
        name, part = _split(layer_name)
        local = name.removeprefix(self.name).removeprefix(".")
        layer: Any = self.module.get_submodule(local)
        values, whole = packed.dequantize().to(layer.weight.device), view.matrix(layer)
        height = len(whole) if part is None else len(whole) // view.groups(layer)
        if values.shape != (height, whole.shape[1]):
            raise TrialFailed(f"layer {layer_name}: the compressed weight has shape {tuple(values.shape)}")
        if not torch.isfinite(values).all():
            raise TrialFailed(f"layer {layer_name}: the compressed weight holds a number that is not finite")
        if part is None:
            whole = values
        else:
            whole = torch.cat([whole[: part * height], values, whole[(part + 1) * height :]])
            parts = self._parts.setdefault(name, {})
            parts[part] = packed
            packed = Rows(tuple(parts[i] for i in sorted(parts)))
        if packed.shape == whole.shape:
            self.packed[name] = packed
        self._replaced.setdefault(local, layer.weight.data)
        view.set_matrix(layer, whole)
        if self._kept and (self._kept[0] != local or name in self.packed):
            self._kept = None
        return values

    def _group(self, names: Sequence[str]) -> list[LayerProblem]:
        """The problems of the layers that share an input, less those that are not to be compressed."""
        group = []
        for local in names:
            name = ".".join(part for part in (self.name, local) if part)
            if self._walk.compresses(name):
                layer = self.module.get_submodule(local)
                parts = view.matrix(layer).chunk(view.groups(layer))
                titles = [f"{name}[{part}]" for part in range(len(parts))] if len(parts) > 1 else [name]
                group += [self._problem(titles[part], weight, names[0], part) for part, weight in enumerate(parts)]
        return group

    def _problem(self, title: str, weight: Tensor, source: str, part: int) -> LayerProblem:
        """`source`: the layer whose inputs are taken, the first of those that share them."""

        def paired() -> Iterator[tuple[Tensor, Tensor]]:
            return zip(self._rows(source, part), self._rows(source, part, original=True), strict=True)

        return LayerProblem(
            title,
            weight,
            generator=self._walk.generator(title),
            inputs=lambda: self._rows(source, part),
            paired=paired,
            statistics=self._statistics.setdefault((source, part), {}),
            dtype=self._walk.problem.handle.dtype,
        )

    def _rows(self, local: str, part: int, *, original: bool = False) -> Iterator[Tensor]:
        """The inputs of a layer as rows (tokens, n) without padding, batch by batch."""
        layer: Any = self.module.get_submodule(local)
        for xs, mask in zip(self._layer_inputs(local, original), self._walk.masks, strict=True):
            rows = [view.rows(layer, x, mask=mask, group=part) for x in xs]
            yield torch.cat(rows) if rows else layer.weight.new_zeros(0, view.matrix(layer).shape[1])

    def _layer_inputs(self, local: str, original: bool) -> Iterator[list[Tensor]]:
        """What a layer is called with on each batch."""
        calls = self.original_calls() if original else self.calls()
        module = self.original if original else self.module
        layer = module.get_submodule(local)
        if original or view.groups(layer) == 1:
            return _run_to(layer, module, calls)
        # Kept, not to run the block again for each group of a grouped convolution.
        if self._kept is None or self._kept[0] != local:
            self._kept = (local, list(_run_to(layer, module, calls)))
        return iter(self._kept[1])


@torch.no_grad()
def _run_to(layer: nn.Module, block: nn.Module, calls: Sequence[Call]) -> Iterator[list[Tensor]]:
    """Run a block on each batch, only as far as one of its layers; yields the layer's inputs.

    The first batch is run to its end, to see whether the layer is called once.
    """
    once = False
    for call in calls:
        seen: list[Tensor] = []

        def note(module: nn.Module, args: tuple, kwargs: dict, seen: list[Tensor] = seen, once: bool = once) -> None:
            seen.append(Call(args, kwargs).hidden)
            if once:
                raise Stop

        hook = layer.register_forward_pre_hook(note, with_kwargs=True)
        try:
            call(block)
        except Stop:
            pass
        finally:
            hook.remove()
        once = len(seen) == 1
        yield seen


def _note_call(module: nn.Module, name: str, seen: list[tuple[str, Call]], enough: int | None) -> Any:
    """Note the calls of a module, and end the pass when those of `enough` modules have been noted."""

    def note(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        seen.append((name, Call(args, kwargs, output)))
        if len(dict(seen)) == enough:
            raise Stop

    return module.register_forward_hook(note, with_kwargs=True)


def _split(layer_name: str) -> tuple[str, int | None]:
    """`conv[3]` is part 3 of layer `conv`."""
    found = re.fullmatch(r"(.*)\[(\d+)\]", layer_name)
    return (found[1], int(found[2])) if found else (layer_name, None)
