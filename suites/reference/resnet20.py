"""resnet20: a published CIFAR-10 ResNet-20, tuned to the JPEG copy of CIFAR-10 that the data mirror has."""

from __future__ import annotations

import shutil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import data
from harness.models import open_model, vision
from harness.train.loop import Phase, run_phases
from harness.train.reference import Report, Run
from harness.train.schedules import cosine
from suites.reference import images

RECIPE = {"epochs": 3, "batch": 128, "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "shift": 4, "seed": 0}

ABOUT = """The ResNet-20 of He et al. (2016) for CIFAR-10, {parameters:,} parameters. It starts from the weights
published at github.com/akamaster/pytorch_resnet_cifar10 (BSD-2-Clause, see LICENSE), which reach 91.7% on the original
images, and is tuned to a copy of CIFAR-10 stored as JPEG (quality 75), on whose test images those weights lose ten
points. Its figures can be compared with each other, and not with published accuracies on CIFAR-10."""


def loss(model: nn.Module, batch: images.Batch, generator: torch.Generator) -> Tensor:
    return F.cross_entropy(model(images.shifted(batch[0], RECIPE["shift"], generator, mirror=True)), batch[1])


def train(run: Run) -> Report:
    parts = {split: data.load("cifar10", split=split) for split in ("train", "test")}
    published = open_model("resnet20-original")
    model = published.load(requires_grad=True)
    x = {split: vision.preprocess(part.column("img"), model.config) for split, part in parts.items()}
    y = {split: torch.tensor(part.column("label")) for split, part in parts.items()}
    before = images.accuracy(model, x["test"], y["test"])

    phase = Phase(
        steps=RECIPE["epochs"] * (len(x["train"]) // RECIPE["batch"]),
        batches=images.epochs(x["train"], y["train"], RECIPE["batch"], RECIPE["seed"]),
        loss=loss,
        optimizer=lambda named: torch.optim.SGD(
            named.values(), lr=RECIPE["lr"], momentum=RECIPE["momentum"], weight_decay=RECIPE["weight_decay"]
        ),
        schedule=cosine(warmup=50),
    )
    hashes = [("published weights", published.hash), *((f"cifar10 ({s})", part.hash) for s, part in parts.items())]
    fitted = run_phases(
        model,
        [phase],
        generator=torch.Generator().manual_seed(RECIPE["seed"]),
        checkpoint=run.checkpoint,
        checkpoint_every=100,
        tag=run.tag(RECIPE, hashes),
        title=run.name,
    )
    images.save(model, model.config, run.folder)
    shutil.copyfile(published.folder / "LICENSE", run.folder / "LICENSE")
    model.eval()
    return Report(
        title="resnet20",
        about=ABOUT.format(parameters=sum(p.numel() for p in model.parameters())),
        data=hashes,
        recipe=RECIPE,
        measured=[
            (
                f"top-1 accuracy, test ({len(x['test']):,} JPEG images)",
                f"{images.accuracy(model, x['test'], y['test']):.2%}",
            ),
            ("the published weights on the same images", f"{before:.2%}"),
        ],
        fitted=fitted,
        license="bsd-2-clause",
        notes=["The last weights are taken; the test images chose nothing."],
    )
