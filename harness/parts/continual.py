"""What methods that learn one task after the other share: the sequence, exemplars that are kept, losses on the classes
that have been seen, and the figures of an accuracy matrix.

R[t][j] is the accuracy on task j after training on task t (Lopez-Paz and Ranzato 2017, "Gradient episodic memory").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import BadInput
from harness.tasks.task import Split


def in_parts(classes: Sequence[int], parts: int) -> list[list[int]]:
    """Classes in consecutive parts whose sizes differ by 1 at the most."""
    return [list(map(int, part)) for part in np.array_split(np.asarray(classes), parts)]


def classes_of(split: Split) -> list[int]:
    """The labels that occur, in order."""
    return split.labels.unique().tolist()


def seen_only(logits: Tensor, classes: Sequence[int]) -> Tensor:
    """Logits (N, C) with those of all other classes at minus infinity, as of a head that has not grown yet."""
    masked = torch.full_like(logits, -torch.inf)
    masked[:, list(classes)] = logits[:, list(classes)]
    return masked


def head_of(model: nn.Module) -> nn.Linear:
    """The layer that gives the logits. BadInput for a model whose last layer is not one of the usual names."""
    for name in ("head", "linear", "classifier", "fc"):
        if isinstance(layer := getattr(model, name, None), nn.Linear):
            return layer
    raise BadInput(f"a model of class {type(model).__name__} has no linear layer named head, linear, classifier or fc")


@torch.no_grad()
def features(model: nn.Module, inputs: Tensor, size: int = 256) -> Tensor:
    """(N, d): what the head reads, the model in eval mode."""
    found: list[Tensor] = []
    hook = head_of(model).register_forward_pre_hook(lambda module, args: found.append(args[0].flatten(1)))
    training = model.training
    model.eval()
    try:
        for part in inputs.split(size):
            model(part)
    finally:
        hook.remove()
        model.train(training)
    return torch.cat(found)


def herding(vectors: Tensor, count: int) -> list[int]:
    """Rows whose running mean stays nearest to the mean of all (N, d), in the order they are taken (Rebuffi et al.
    2017, "iCaRL", algorithm 4). Vectors are scaled to length 1 first, as there."""
    unit = nn.functional.normalize(vectors.double(), dim=1)
    target, total = unit.mean(0), torch.zeros(unit.shape[1], dtype=torch.float64)
    chosen: list[int] = []
    free = torch.ones(len(unit), dtype=torch.bool)
    for at in range(min(count, len(unit))):
        distances = ((total + unit) / (at + 1) - target).norm(dim=1)
        best = int(torch.where(free, distances, torch.inf).argmin())
        chosen.append(best)
        free[best] = False
        total += unit[best]
    return chosen


@dataclass
class Exemplars:
    """A memory of at most `size` samples, shared evenly by the classes seen so far; of each class those first chosen
    are kept longest."""

    size: int
    kept: dict[int, Split] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(split) for split in self.kept.values())

    def add(self, chosen: dict[int, Split]) -> None:
        """Take up new classes, each with its samples in the order of their worth."""
        self.kept |= chosen
        each, more = divmod(self.size, len(self.kept))
        quotas = {label: each + (at < more) for at, label in enumerate(sorted(self.kept))}
        self.kept = {label: split.part(range(min(quotas[label], len(split)))) for label, split in self.kept.items()}

    def split(self) -> Split:
        """All samples in one."""
        return joined([self.kept[label] for label in sorted(self.kept)])

    def tensors(self) -> dict[str, Tensor]:
        """What has to be stored of it."""
        if not len(self):
            return {}
        whole = self.split()
        return {"exemplars.inputs": whole.inputs, "exemplars.labels": whole.labels}


def joined(splits: Sequence[Split]) -> Split:
    """Several splits as one."""
    inputs, labels = (torch.cat([getattr(split, name) for split in splits]) for name in ("inputs", "labels"))
    return Split(inputs, labels, [id for split in splits for id in split.ids])


Rights = Sequence[Sequence[np.ndarray]]
"""rights[t][j]: for each test item of task j whether it was classified rightly after task t (0 or 1)."""


def accuracy_matrix(rights: Rights) -> np.ndarray:
    """R (T, T)."""
    return np.array([[each.mean() for each in row] for row in rights])


def forgotten(rights: Rights) -> list[np.ndarray]:
    """For each task but the last, by item: right after the task at which R[t][j] was highest (before the last), minus
    right at the end (Chaudhry et al. 2018: the mean over items is the task's forgetting)."""
    matrix = accuracy_matrix(rights)
    last = len(rights) - 1
    return [rights[int(matrix[:last, j].argmax())][j] - rights[last][j] for j in range(last)]


def transferred(rights: Rights) -> list[np.ndarray]:
    """For each task but the last, by item: right at the end minus right after the task itself (Lopez-Paz and Ranzato
    2017, backward transfer)."""
    last = len(rights) - 1
    return [rights[last][j] - rights[j][j] for j in range(last)]
