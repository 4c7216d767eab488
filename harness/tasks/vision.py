"""Image classification tasks: a data set's images in memory, some of them drawn for training, perhaps transformed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import data
from harness.errors import BadInput, nearest
from harness.tasks.task import Split, Task, drawn, known_fields

KIND = "vision"
FIELDS: dict[str, Any] = {
    "dataset": None,
    "train": 1000,
    "dev": 200,
    "test": None,
    "size": None,
    "transform": "identity",
    "classes": None,
    "noise": 0.0,
}
"""Fields of an image task and their defaults: numbers of images, the side they are averaged down to, transforms joined
by `+`, the classes that are kept, and the part of the training labels that is drawn anew at random."""
PIXEL_MAX = {"digits": 16}


def _rotate(turns: int) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.rot90(x, turns, (2, 3))


def _permuted(x: Tensor) -> Tensor:
    order = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    return x.flatten(2)[:, :, order].view_as(x)


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "rotate90": _rotate(1),
    "rotate180": _rotate(2),
    "rotate270": _rotate(3),
    "transpose": lambda x: x.transpose(2, 3),
    "mirror": lambda x: x.flip(3),
    "flip": lambda x: x.flip(2),
    "invert": lambda x: -x,
    "roll": lambda x: x.roll((x.shape[2] // 2, x.shape[3] // 2), (2, 3)),
    "blur": lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1),
    "permute": _permuted,
}
"""What is done to images (N, C, H, W) with values in [-1, 1]; none of them draws at random."""


def describe(spec: Mapping[str, Any]) -> dict[str, str]:
    """Content hashes of the training and test data; BadInput for a field that is wrong."""
    fields = check(spec)
    train, test = _splits(fields["dataset"])
    return {split: data.content_hash(fields["dataset"], split) for split in (train, test)}


def check(spec: Mapping[str, Any]) -> dict[str, Any]:
    fields = known_fields(spec, FIELDS, "task")
    for name in ("train", "dev", "test", "size"):
        value = fields[name]
        if value is not None and (type(value) is not int or value < 1):
            raise BadInput(f"task: {name}={value!r} is not accepted; it takes a number of at least 1")
    for name in str(fields["transform"]).split("+"):
        if name not in TRANSFORMS:
            raise BadInput(f"task: unknown transform {name!r}; {nearest(name, TRANSFORMS)}")
    noise = fields["noise"]
    if not isinstance(noise, float | int) or not 0 <= noise <= 1:
        raise BadInput(f"task: noise={noise!r} is not accepted; it takes a part from 0 to 1")
    return fields


def make(spec: Mapping[str, Any], generator: torch.Generator, *, model: Any = None) -> Task:
    """The task of a specification; which images train and which develop is drawn from the generator.

    Images come as (N, C, H, W) float32 in [-1, 1], or, given a `model` (a handle), as that model's preprocessing gives
    them. The labels stay the data set's, whichever classes are kept.
    """
    fields = check(spec)
    name = fields["dataset"]
    (train_images, train_labels), (test_images, test_labels) = (_read(name, split) for split in _splits(name))
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    kept = fields["classes"] or range(classes)
    pool, tests = (np.flatnonzero(np.isin(labels, list(kept))) for labels in (train_labels, test_labels))
    train, dev = drawn(len(pool), (fields["train"], fields["dev"]), generator, f"data set {name}")
    tests = tests[: fields["test"]]

    def split(images: Sequence[Any], labels: np.ndarray, rows: np.ndarray, part: str) -> Split:
        x = _pixels(name, [images[row] for row in rows], fields, model)
        return Split(x, torch.as_tensor(labels[rows]), [f"{name}:{part}:{row}" for row in rows])

    found = split(train_images, train_labels, pool[train.numpy()], "train")
    if fields["noise"]:
        found = Split(found.inputs, relabelled(found.labels, fields["noise"], list(kept), generator), found.ids)
    told = {key: value for key, value in fields.items() if value != FIELDS[key] and key not in ("dataset", "dev")}
    options = "".join(f"|{key}:{_told(value)}" for key, value in sorted(told.items()))
    return Task(
        name if fields["transform"] == "identity" else f"{name}+{fields['transform']}",
        "vision",
        found,
        split(train_images, train_labels, pool[dev.numpy()], "train"),
        split(test_images, test_labels, tests, "test"),
        f"{name}@{data.content_hash(name, _splits(name)[1])[:12]}{options}",
        classes,
    )


def relabelled(labels: Tensor, part: float, classes: Sequence[int], generator: torch.Generator) -> Tensor:
    """Labels (N,) of which a `part` is drawn anew, uniformly over the classes (so some stay what they were)."""
    chosen = torch.rand(len(labels), generator=generator) < part
    anew = torch.as_tensor(classes)[torch.randint(len(classes), labels.shape, generator=generator)]
    return torch.where(chosen, anew, labels)


def _told(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _splits(name: str) -> tuple[str, str]:
    """The training and the test split of a data set."""
    if not isinstance(name, str):
        raise BadInput(f"task: dataset={name!r} is not accepted; it takes the name of a data set")
    return "train", data.locate(name).split


@functools.lru_cache(maxsize=4)
def _read(name: str, split: str) -> tuple[list[Any], np.ndarray]:
    found = data.load(name, split=split)
    column = "img" if "img" in found.columns else "image"
    return found.column(column), np.array(found.column("label"))


def _pixels(name: str, images: Sequence[Any], fields: Mapping[str, Any], model: Any) -> Tensor:
    if model is not None:
        x = model.preprocess(images)
    else:
        x = _scaled(name, images)
    if fields["size"]:
        x = F.interpolate(x, size=(fields["size"],) * 2, mode="area")
    for transform in str(fields["transform"]).split("+"):
        x = TRANSFORMS[transform](x)
    return x.contiguous()


def _scaled(name: str, images: Sequence[Any]) -> Tensor:
    """(N, C, H, W) in [-1, 1]."""
    from harness.models.vision import pixels

    first = images[0]["bytes"] if isinstance(images[0], Mapping) else images[0]
    channels = 3 if name.startswith(("cifar", "uoft-cs/cifar")) or not isinstance(first, bytes | list) else 1
    array = np.stack([pixels(image, channels) for image in images])
    side = int((array[0].size // channels) ** 0.5)
    x = torch.from_numpy(array.reshape(len(array), side, side, channels)).permute(0, 3, 1, 2).float()
    return x / (PIXEL_MAX.get(name, 255) / 2) - 1
