"""Our image classifiers: their shapes, their published weights, and their preprocessing."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from harness.errors import BadInput
from harness.models import family_of, open_model
from harness.models.vision import build, digits_vit, preprocess, resnet20


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_resnet20_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in resnet20().parameters()) == 269_722


@pytest.mark.parametrize(("builder", "shape"), [(resnet20, (3, 32, 32)), (digits_vit, (1, 8, 8))])
def test_a_config_rebuilds_the_same_module(builder, shape):
    model = builder(num_classes=7).eval()
    again = build(json.loads(json.dumps(model.config))).eval()
    again.load_state_dict(model.state_dict())
    x = torch.randn(5, *shape)
    assert model(x).shape == (5, 7)
    assert torch.equal(model(x), again(x))


def test_vit_is_sensitive_to_the_place_of_a_patch():
    model, x = digits_vit().eval(), torch.randn(1, 1, 8, 8)
    assert not torch.allclose(model(x), model(x.flip(-1)), atol=1e-6)


def test_shortcut_subsamples_and_pads_with_zeros():
    block = resnet20().layer2[0].eval()
    with torch.no_grad():
        block.bn2.weight.zero_()
        x = torch.rand(2, 16, 8, 8)
        out = block(x)
    assert out.shape == (2, 32, 4, 4)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].abs().sum() == 0
    assert out[:, 24:].abs().sum() == 0


@pytest.mark.parametrize(("builder", "shape"), [(resnet20, (3, 32, 32)), (digits_vit, (1, 8, 8))])
def test_the_family_row_runs_the_model_block_by_block(builder, shape):
    model = builder().eval()
    family = family_of(model.config)
    x = torch.randn(4, *shape)
    expected = model(x)
    if builder is digits_vit:
        patches = torch.nn.functional.unfold(x, 2, stride=2).transpose(1, 2)
        x = model.embed(patches) + model.position.weight
    for name in family.block_names(model):
        if name in family.enter:
            x = getattr(model, family.enter[name])(x)
        x = model.get_submodule(name)(x)
    if builder is digits_vit:
        x = model.head(model.norm(x).mean(dim=1))
    assert torch.equal(x, expected)


def test_resnet20_stages_cover_every_layer():
    model = resnet20()
    family = family_of(model.config)
    names = family.block_names(model)
    assert names[:2] == ["conv1", "layer1.0"]
    assert names[-1] == "linear"
    assert len(names) == 11
    assert family.layer_groups(model.layer1[0]) == [["conv1"], ["conv2"]]
    assert family.layer_groups(model.conv1) == [[""]]


def test_preprocess_scales_and_normalises():
    config = resnet20().config
    image = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    image[1] = 255
    x = preprocess(image, config)
    assert x.shape == (2, 3, 32, 32)
    assert x.dtype == torch.float32
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        assert torch.allclose(x[0, channel], torch.tensor(-mean / std))
        assert torch.allclose(x[1, channel], torch.tensor((1 - mean) / std))


def test_preprocess_reads_every_way_a_data_set_holds_images():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    config = resnet20().config
    expected = preprocess(pixels[None], config)
    for image in (pixels, stream.getvalue(), {"bytes": stream.getvalue(), "path": "a.png"}):
        assert torch.equal(preprocess([image], config), expected)
    digit = np.arange(64, dtype=np.uint8) % 17
    flat = preprocess([digit.tolist()], digits_vit().config)
    assert torch.equal(flat, preprocess(digit.reshape(1, 8, 8), digits_vit().config))
    assert flat[0, 0, 0, 5] == (5 / 16 - 0.5) / 0.5


def test_images_of_another_size_are_refused():
    with pytest.raises(BadInput, match=r"images of shape \(28, 28\) do not fit resnet20, which takes 32x32x3"):
        preprocess(np.zeros((1, 28, 28), dtype=np.uint8), resnet20().config)


def test_published_checkpoint_classifies_cifar10(mirror):
    handle = open_model("resnet20-original")
    model = handle.load()
    from pyarrow import parquet

    table = parquet.read_table(mirror / "uoft-cs/cifar10/plain_text/test.parquet").slice(0, 1000)
    with torch.no_grad():
        guess = model(handle.preprocess(table.column("img").to_pylist())).argmax(dim=1)
    right = (guess == torch.tensor(table.column("label").to_pylist())).float().mean()
    # 81% on all 10,000 of the mirror's JPEGs; three standard errors of a share of 1,000.
    assert right == pytest.approx(0.8103, abs=0.037)
