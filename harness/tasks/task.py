"""A task: what is learned, split into training, development and test data, whatever the kind of model.

Problems of every track that trains are made of tasks. A task knows how a model of its kind is called, so a method
writes `task.losses(model, batch)` and works on image classifiers and language models alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import BadInput

Kind = Literal["vision", "causal-lm"]


class Batch(NamedTuple):
    """Samples: `inputs` (N, ...), `labels` (N,) classes or (N, L) next tokens, and their `rows` in the split (N,)."""

    inputs: Tensor
    labels: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Split:
    """Inputs and labels of one split in memory, a stable id for each item, and the unit that is resampled when
    neighbouring items depend on each other (`blocks`)."""

    inputs: Tensor
    labels: Tensor
    ids: Sequence[str]
    blocks: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Tensor | Sequence[int]) -> Batch:
        rows = torch.as_tensor(rows, dtype=torch.long)
        return Batch(self.inputs[rows], self.labels[rows], rows)

    def part(self, rows: Tensor | Sequence[int]) -> Split:
        """A split of some of the items."""
        taken = self.take(rows)
        keep = taken.rows.tolist()
        blocks = None if self.blocks is None else [self.blocks[row] for row in keep]
        return Split(taken.inputs, taken.labels, [self.ids[row] for row in keep], blocks)


@dataclass(frozen=True)
class Task:
    """What is learned.

    `train` is what a method trains on, `dev` what it may choose by, and `test` what metrics alone read. `signature`
    names the data and what was done to it, for metrics. `classes` is the number of labels (the vocabulary, for text);
    `source` the tokenizer's model or the data set, for models made from the task.
    """

    name: str
    kind: Kind
    train: Split
    dev: Split
    test: Split
    signature: str
    classes: int
    tokenizer_hash: str = ""

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """(N, classes) for images, (N, L, vocabulary) for text."""
        if self.kind == "vision":
            output = model(pixel_values=inputs) if hasattr(model, "config") else model(inputs)
        elif hasattr(getattr(model, "config", None), "use_cache"):
            output = model(input_ids=inputs, use_cache=False)
        else:
            output = model(inputs)
        return output if isinstance(output, Tensor) else output.logits

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy of each sample, in nats: (N,); of a text, the mean over its tokens."""
        return per_sample(self.logits(model, batch.inputs), batch.labels)

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Mean cross-entropy of a batch, in nats; what `fit` minimizes unless it is told otherwise."""
        return cross_entropy(self.logits(model, batch.inputs), batch.labels)

    def batches(self, size: int, seed: int, split: Split | None = None) -> Callable[[int], Batch]:
        """`batches(i)`: every epoch reads each training sample once, in its own order, but for a last part that fills
        no batch. A position is a number, so a training that is continued needs nothing restored."""
        return epochs(self.train if split is None else split, size, seed)

    def with_train(self, train: Split) -> Task:
        """The same task with other training data."""
        return replace(self, train=train)


def epochs(split: Split, size: int, seed: int) -> Callable[[int], Batch]:
    """Shuffled batches of a split by position; see `Task.batches`."""
    size = min(size, len(split))
    per_epoch = len(split) // size

    def batches(index: int) -> Batch:
        epoch, place = divmod(index, per_epoch)
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
        return split.take(order[place * size : (place + 1) * size])

    return batches


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, over samples (and tokens)."""
    return F.cross_entropy(logits.float().flatten(0, -2), labels.flatten())


def per_sample(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, in nats, of each sample: (N, C) or (N, L, C) -> (N,)."""
    losses = F.cross_entropy(logits.float().flatten(0, -2), labels.flatten(), reduction="none")
    return losses.view(len(labels), -1).mean(1)


@torch.no_grad()
def outputs(task: Task, model: nn.Module, split: Split, size: int = 256) -> Tensor:
    """Logits for a whole split, the model in eval mode while they are computed."""
    training = model.training
    model.eval()
    try:
        return torch.cat([task.logits(model, inputs) for inputs in split.inputs.split(size)])
    finally:
        model.train(training)


@torch.no_grad()
def evaluate(task: Task, model: nn.Module, split: Split, size: int = 256) -> dict[str, np.ndarray]:
    """Per item of a split, the model in eval mode: `loss` in nats, and `accuracy` (0 or 1; for text the part of the
    tokens that were the likeliest)."""
    training = model.training
    model.eval()
    losses, right = [], []
    try:
        for start in range(0, len(split), size):
            batch = split.take(torch.arange(start, min(start + size, len(split))))
            logits = task.logits(model, batch.inputs)
            losses.append(per_sample(logits, batch.labels))
            right.append((logits.argmax(-1) == batch.labels).float().view(len(batch.labels), -1).mean(1))
    finally:
        model.train(training)
    return {"loss": torch.cat(losses).double().numpy(), "accuracy": torch.cat(right).double().numpy()}


def drawn(count: int, wanted: Sequence[int], generator: torch.Generator, what: str) -> list[Tensor]:
    """Disjoint random rows of a data set of `count`: as many for each part as `wanted`. BadInput if there are not."""
    if sum(wanted) > count:
        raise BadInput(f"{what} has {count} samples; train and dev ask for {' + '.join(map(str, wanted))}")
    order = torch.randperm(count, generator=generator)
    return list(order[: sum(wanted)].split(list(wanted)))


def known_fields(spec: Any, fields: dict[str, Any], what: str) -> dict[str, Any]:
    """A mapping's values over the defaults; BadInput for one that is no mapping or has a field that is not known."""
    from harness.errors import nearest

    if not isinstance(spec, dict):
        raise BadInput(f"{what}: {spec!r} is not accepted; it takes a mapping with {', '.join(fields)}")
    for name in spec:
        if name not in fields:
            raise BadInput(f"{what}: unknown field {name}; {nearest(str(name), fields)}")
    return {**fields, **spec}
