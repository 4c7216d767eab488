"""What a method gives back, whatever its track."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.packed import PackedWeight


@dataclass
class Solution:
    """A model, and what is stored of it.

    A compressed model is given by its parts: `packed` weights by module name, and the other tensors that the method
    `changed` (folded norm weights, biases) by parameter name, in their stored dtype; its model is the checkpoint with
    these in it. Any other method gives the `model` itself, or, where it depends on a condition (a task of a merged
    model, an instance), a function from the condition to the model. `stored` holds the tensors that are kept beside
    what the problem came with (an adapter, a sparse update, a basis of merged models); without it, they are the
    model's. `arch` describes an architecture that was searched. `extra` holds what else the track's own metrics read
    (aligned models, generated weights). `log` keeps figures by part (a layer, a phase).
    """

    packed: dict[str, PackedWeight] = field(default_factory=dict)
    changed: dict[str, Tensor] = field(default_factory=dict)
    log: dict[str, Any] = field(default_factory=dict)
    model: nn.Module | Callable[[Any], nn.Module] | None = None
    stored: Mapping[str, Tensor] | None = None
    arch: Any = None
    extra: dict[str, Any] = field(default_factory=dict)

    def model_for(self, condition: Any = None) -> nn.Module:
        """The model under a condition; the only one there is, where there is no choice."""
        from torch import nn

        if self.model is None:
            raise TypeError("the solution is given by its packed weights")
        return self.model if isinstance(self.model, nn.Module) else self.model(condition)

    def tensors(self) -> dict[str, Tensor]:
        """What is stored, each tensor once: tied weights are one tensor."""
        kept = self.stored if self.stored is not None else self.model_for().state_dict()
        seen: dict[tuple, str] = {}
        for name, tensor in kept.items():
            place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape))
            seen.setdefault(place if tensor.numel() else (name,), name)
        return {name: kept[name] for name in seen.values()}
