"""Top-1 accuracy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from metrics_samples import with_data
from torch import nn

from harness.errors import BadInput
from harness.metrics.subject import Subject
from harness.metrics.vision import top1
from harness.models.vision import digits_vit, preprocess


class Brightest(nn.Module):
    """Its class is the brightest of an image's pixels."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, pixel_values):
        return pixel_values.flatten(1) * self.scale


def images(count: int = 600, column: str = "image"):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, count)
    pixels = np.zeros((count, 4), dtype=np.uint8)
    pixels[np.arange(count), labels] = 9
    wrong = np.arange(count) % 3 == 0
    columns = {column: pixels.tolist(), "label": np.where(wrong, (labels + 1) % 4, labels).tolist()}
    source = SimpleNamespace(preprocess=lambda images: torch.tensor(images).float().view(-1, 1, 2, 2))
    return with_data(Subject(Brightest(), "vision", source), columns), ~wrong


@pytest.mark.parametrize("column", ["image", "img"])
def test_each_image_is_right_or_wrong(column):
    sample, right = images(column=column)
    scores = top1(sample, dataset="any")
    assert (scores.values == right).all()
    assert scores.value == pytest.approx(2 / 3)
    assert scores.higher_is_better
    assert scores.ids[599] == "test:599"
    assert scores.signature == "top1|sample:test@dddddddddddd|v:1"


def test_a_limit_keeps_the_first_images():
    sample, right = images()
    sample.limit = 10
    scores = top1(sample, dataset="any")
    assert (scores.values == right[:10]).all()
    assert "|items:10|" in scores.signature
    assert (top1(sample, dataset="any", images=4).values == right[:4]).all()
    sample.limit = None
    assert (top1(sample, dataset="any", images=20).values == right[:20]).all()


def test_labels_beyond_the_model_are_refused():
    sample, _ = images()
    with_data(sample, {"image": [[0, 0, 0, 0]], "label": [4]})
    with pytest.raises(BadInput, match="has label 4; the model has 4 classes"):
        top1(sample, dataset="any")


def test_a_real_vision_transformer_on_real_digits():
    """The whole path from scikit-learn's digits to scores, against one forward pass."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = digits_vit().eval()
    source = SimpleNamespace(preprocess=lambda images: preprocess(images, model.config))
    sample = Subject(model, "vision", source, limit=300)
    scores = top1(sample, dataset="digits")
    data = sample.data("digits", "test")
    with torch.no_grad():
        guess = model(preprocess(np.array(data.column("image"), dtype=np.uint8), model.config)).argmax(1).numpy()
    assert (scores.values == (guess == data.column("label"))[:300]).all()
    assert len(set(scores.ids)) == 300
