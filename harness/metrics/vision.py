"""Accuracy of image classifiers."""

from __future__ import annotations

import numpy as np

from harness.errors import BadInput
from harness.metrics.subject import Subject, named
from harness.params import Count, Dataset
from harness.registry import metric
from harness.scores import Scores

VERSION = 1
BATCH = 256


@metric(bounds=(0, 1))
def top1(subject: Subject, *, dataset: Dataset, split: str = "test", images: Count | None = None) -> Scores:
    """Top-1 accuracy: whether the likeliest class is the image's label, for each image, or for the first `images`.

    Raises BadInput for a data set without images (column `image` or `img`) and labels (`label`), or with more classes
    than the model has.
    """
    import torch

    subject.require("vision", "top1")
    data = subject.data(dataset, split)
    count = min(subject.count(data), images or len(data))
    column = "img" if "img" in data.columns else "image"
    pixels, labels = data.column(column)[:count], np.array(data.column("label")[:count])
    guesses = []
    for start in range(0, count, BATCH):
        logits = subject.logits({"pixel_values": subject.preprocess(pixels[start : start + BATCH])})
        if labels.max(initial=0) >= logits.shape[1]:
            title, classes = data.source.title, logits.shape[1]
            raise BadInput(f"top1: {title} has label {labels.max()}; the model has {classes} classes")
        guesses.append(logits.argmax(dim=1))
    return Scores(
        ids=data.ids()[:count],
        values=(torch.cat(guesses).cpu().numpy() == labels).astype(float),
        signature=f"top1|{named(data, count)}|v:{VERSION}",
        unit="accuracy",
        higher_is_better=True,
    )
