"""Image classifiers small enough to train on a laptop, and the preprocessing their weights were trained with.

Each builder returns a plain module whose `config` is a dictionary that `build` turns into the same module again: what
is written as config.json beside the weights.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import BadInput, nearest


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and an option-A shortcut: a stride-2 subsampling padded with zero channels (He 2016)."""

    def __init__(self, inputs: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.padding = stride, (channels - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.padding:
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + shortcut)


class ResNet(nn.Module):
    """The CIFAR ResNet of He et al. (2016), section 4.2: 6n + 2 layers, n = `depth` blocks a stage."""

    def __init__(self, config: dict[str, Any], depth: int):
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, depth)
        self.layer2 = self._stage(16, 32, depth)
        self.layer3 = self._stage(32, 64, depth)
        self.linear = nn.Linear(64, config["num_classes"])
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(inputs: int, channels: int, depth: int) -> nn.Sequential:
        first = BasicBlock(inputs, channels, 1 if inputs == channels else 2)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(depth - 1)))

    def stem(self, x: Tensor) -> Tensor:
        """What lies between the first convolution and the first block."""
        return F.relu(self.bn1(x))

    def pool(self, x: Tensor) -> Tensor:
        """What lies between the last block and the classifier."""
        return x.mean(dim=(2, 3))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(N, 3, 32, 32) normalised images -> (N, classes) logits."""
        x = self.stem(self.conv1(pixel_values))
        return self.linear(self.pool(self.layer3(self.layer2(self.layer1(x)))))


class Attention(nn.Module):
    """Multi-head self-attention over (N, tokens, dim)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ViTBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, hidden: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim), MLP(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021) that averages its tokens instead of reading a class token."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.config = config
        dim, self.patch_size = config["dim"], config["patch_size"]
        self.embed = nn.Linear(len(config["image_mean"]) * self.patch_size**2, dim)
        self.position = nn.Embedding((config["image_size"] // self.patch_size) ** 2, dim)
        nn.init.normal_(self.position.weight, std=0.02)
        self.blocks = nn.ModuleList(ViTBlock(dim, config["heads"], config["mlp_dim"]) for _ in range(config["depth"]))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, config["num_classes"])

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(N, channels, size, size) normalised images -> (N, classes) logits."""
        patches = F.unfold(pixel_values, self.patch_size, stride=self.patch_size).transpose(1, 2)
        x = self.embed(patches) + self.position.weight
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


def resnet20(num_classes: int = 10) -> ResNet:
    """ResNet-20 for 32x32 RGB images; 269,722 parameters for 10 classes.

    Normalisation: the constants published with the CIFAR-10 checkpoint that it loads (ImageNet's mean and deviation).
    """
    config = {
        "architecture": "resnet20",
        "num_classes": num_classes,
        "image_size": 32,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "pixel_max": 255,
    }
    return ResNet(config, depth=3)


def digits_vit(
    num_classes: int = 10, patch_size: int = 2, dim: int = 64, depth: int = 4, heads: int = 4, mlp_dim: int = 128
) -> ViT:
    """A vision transformer for scikit-learn's 8x8 digits, whose pixels run from 0 to 16; 136,010 parameters."""
    config = {
        "architecture": "digits_vit",
        "num_classes": num_classes,
        "patch_size": patch_size,
        "dim": dim,
        "depth": depth,
        "heads": heads,
        "mlp_dim": mlp_dim,
        "image_size": 8,
        "image_mean": [0.5],
        "image_std": [0.5],
        "pixel_max": 16,
    }
    return ViT(config)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"resnet20": resnet20, "digits_vit": digits_vit}


def build(config: Mapping[str, Any]) -> nn.Module:
    """The module that a `config` describes, with fresh weights."""
    name = config.get("architecture")
    if name not in ARCHITECTURES:
        raise BadInput(f"architecture {name!r} is not one of ours; {nearest(str(name), ARCHITECTURES)}")
    builder = ARCHITECTURES[name]
    return builder(**{key: config[key] for key in inspect.signature(builder).parameters if key in config})


def preprocess(images: Sequence[Any] | np.ndarray, config: Mapping[str, Any]) -> Tensor:
    """Images -> (N, C, H, W) float32, scaled to [0, 1] by `pixel_max` and normalised by `image_mean`, `image_std`.

    `images`: a uint8 array (N, H, W, C), (N, H, W) or (N, H*W), or a sequence of single images, each an array, encoded
    bytes (JPEG, PNG) or a dictionary with `bytes`, as a data set's image column holds them. Raises BadInput for images
    of another size than the model's.
    """
    size, channels = config["image_size"], len(config["image_mean"])
    array = images if isinstance(images, np.ndarray) else np.stack([pixels(image, channels) for image in images])
    if array.size != len(array) * size * size * channels:
        shape = f"{size}x{size}x{channels}"
        raise BadInput(f"images of shape {array.shape[1:]} do not fit {config['architecture']}, which takes {shape}")
    x = torch.from_numpy(array.reshape(-1, size, size, channels)).permute(0, 3, 1, 2).float() / config["pixel_max"]
    mean, std = (torch.tensor(config[key]).view(1, -1, 1, 1) for key in ("image_mean", "image_std"))
    return ((x - mean) / std).contiguous()


def pixels(image: Any, channels: int) -> np.ndarray:
    """One image as a uint8 array (H, W, C), or as the array it already is."""
    if isinstance(image, Mapping):
        image = image["bytes"]
    if isinstance(image, bytes):
        from PIL import Image

        with Image.open(io.BytesIO(image)) as picture:
            return np.array(picture.convert("RGB" if channels == 3 else "L"))
    return np.asarray(image, dtype=np.uint8)
