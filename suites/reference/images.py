"""What the image recipes share: batches by epoch, shifted and mirrored copies, accuracy, and the files of a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


def epochs(images: Tensor, labels: Tensor, batch: int, seed: int) -> Callable[[int], Batch]:
    """`batches(i)`: every epoch reads each image once, in its own order, but for the last that fill no batch."""
    per_epoch = len(images) // batch

    def batches(index: int) -> Batch:
        epoch, place = divmod(index, per_epoch)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
        rows = order[place * batch : (place + 1) * batch]
        return images[rows], labels[rows]

    return batches


def shifted(images: Tensor, by: int, generator: torch.Generator, *, mirror: bool = False) -> Tensor:
    """Each image (N, C, S, S) moved by up to `by` pixels each way, its edge repeated; half of them mirrored."""
    count, size = len(images), images.shape[-1]
    padded = F.pad(images, (by, by, by, by), mode="replicate")
    corner = torch.randint(0, 2 * by + 1, (2, count, 1), generator=generator)
    rows, columns = corner + torch.arange(size)
    if mirror:
        columns = torch.where(torch.rand(count, 1, generator=generator) < 0.5, columns, columns.flip(1))
    item = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[item, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch: int = 500) -> float:
    """The part of the images whose largest logit is their label's."""
    right = [(model(x).argmax(1) == y).float() for x, y in zip(images.split(batch), labels.split(batch), strict=True)]
    return float(torch.cat(right).mean())


def save(model: nn.Module, config: dict[str, Any], folder: Path) -> None:
    """model.safetensors and config.json."""
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
