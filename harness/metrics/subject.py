"""What a metric evaluates: a model with its tokenizer or image preprocessing, and where its data comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from harness.data import Dataset
    from harness.models import ModelHandle
    from harness.tasks import Task

Batch = dict[str, "Tensor"]


@dataclass
class Subject:
    """A model in eval mode and what goes with it.

    `kind` is "causal-lm", "encoder" or "vision". `source` gives the `tokenizer`, its `tokenizer_hash` and
    `preprocess`: a ModelHandle, or any object with those of them that the metric uses. `limit` is the most items of a
    metric. `forward` stands in for calling the model, for one that is streamed because it is larger than memory.
    `shares_prefixes`: whether the model can compute the common beginning of sequences once (None: not tried yet).
    `tasks` are those that a trained model is evaluated on, by name; `model_for` gives the model for one of them, where
    it depends on that. `extra` holds what else a track's own metrics read.
    """

    model: nn.Module
    kind: str
    source: Any = None
    name: str = ""
    limit: int | None = None
    forward: Callable[[Batch, Tensor | None], Tensor] | None = None
    shares_prefixes: bool | None = None
    tasks: dict[str, Task] = field(default_factory=dict)
    model_for: Callable[[Any], nn.Module] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, handle: ModelHandle, model: nn.Module, *, limit: int | None = None) -> Subject:
        """A model made from `handle`, whose tokenizer and preprocessing are still right for it."""
        return cls(model, handle.kind, handle, handle.name, limit)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def tokenizer(self) -> Any:
        return self.source.tokenizer

    @property
    def tokenizer_hash(self) -> str:
        return str(self.source.tokenizer_hash)

    @property
    def max_length(self) -> int | None:
        """The longest input that the model has positions for, where its config says."""
        config = getattr(self.model, "config", None)
        names = ("max_position_embeddings", "n_positions", "n_ctx")
        return next((int(value) for name in names if (value := getattr(config, name, None))), None)

    @property
    def vocabulary(self) -> int:
        """Tokens that the model has logits for; 0 where its config does not say."""
        return int(getattr(getattr(self.model, "config", None), "vocab_size", 0))

    def preprocess(self, images: Sequence[Any]) -> Tensor:
        """Images as a data set holds them -> the model's `pixel_values`."""
        return self.source.preprocess(images)

    def data(self, name: str, split: str | None = None) -> Dataset:
        """The whole split of a data set; what `limit` counts is the metric's business."""
        from harness import data

        return data.load(name, split=split)

    def count(self, data: Dataset) -> int:
        """How many of a data set's items to evaluate."""
        return min(len(data), self.limit or len(data))

    def require(self, kind: str, metric: str) -> None:
        """BadInput unless the model is of the kind that a metric is for."""
        if self.kind != kind:
            name = self.name or "the model"
            raise BadInput(f"metric {metric} is for a model of kind {kind}; {name} is of kind {self.kind}")

    def logits(self, batch: Batch, keep: Tensor | None = None) -> Tensor:
        """The model's logits, (rows, length, vocabulary) or (images, classes).

        With `keep` (K,), positions in the flattened batch, only those: (K, vocabulary). The output layer, which for a
        small model is a large part of the work, is then not applied to any other.
        """
        import torch

        with torch.inference_mode():
            if self.forward is not None:
                return self.forward(batch, keep)
            batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
            # Nothing is generated, so keys and values need not be kept.
            cache = {"use_cache": False} if hasattr(getattr(self.model, "config", None), "use_cache") else {}
            head = getattr(self.model, "get_output_embeddings", lambda: None)()
            if keep is None or head is None:
                logits = _logits(self.model(**batch, **cache))
                return logits if keep is None else logits.flatten(0, 1)[keep.to(logits.device)]

            def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                hidden = args[0].flatten(0, -2)
                return (hidden[keep.to(hidden.device)],)

            hook = head.register_forward_pre_hook(select)
            try:
                return _logits(self.model(**batch, **cache))
            finally:
                hook.remove()


def _logits(output: Any) -> Tensor:
    return output.logits if hasattr(output, "logits") else output


def named(data: Dataset, items: int | None = None) -> str:
    """A data set in a signature: `name:split@` and the beginning of its content's hash; and how many of its items were
    used, if not all."""
    part = "" if items is None or items == len(data) else f"|items:{items}"
    return f"{data.source.title}@{data.hash[:12]}{part}"
