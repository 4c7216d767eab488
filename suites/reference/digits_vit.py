"""digits-vit: a vision transformer on scikit-learn's 8 x 8 digits."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import data
from harness.models import vision
from harness.train.loop import Phase, run_phases
from harness.train.reference import Report, Run
from harness.train.schedules import cosine
from suites.reference import images

RECIPE = {"epochs": 100, "batch": 64, "lr": 2e-3, "weight_decay": 0.05, "shift": 1, "seed": 0}

ABOUT = """A vision transformer of {parameters:,} parameters that reads scikit-learn's handwritten digits (8 x 8 pixels)
in patches of 2 x 2. Data and weights come with the project: nothing is downloaded."""


def loss(model: nn.Module, batch: images.Batch, generator: torch.Generator) -> Tensor:
    return F.cross_entropy(model(images.shifted(batch[0], RECIPE["shift"], generator)), batch[1])


def train(run: Run) -> Report:
    parts = {split: data.load("digits", split=split) for split in ("train", "test")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RECIPE["seed"])  # torch's own layers draw their first weights from the global generator
        model = vision.digits_vit()
    x, y = {}, {}
    for split, part in parts.items():
        x[split] = vision.preprocess(np.array(part.column("image"), dtype=np.uint8), model.config)
        y[split] = torch.tensor(part.column("label"))

    phase = Phase(
        steps=RECIPE["epochs"] * (len(x["train"]) // RECIPE["batch"]),
        batches=images.epochs(x["train"], y["train"], RECIPE["batch"], RECIPE["seed"]),
        loss=loss,
        optimizer=lambda named: torch.optim.AdamW(named.values(), lr=RECIPE["lr"], weight_decay=RECIPE["weight_decay"]),
        schedule=cosine(warmup=100),
    )
    hashes = [(f"digits ({split})", part.hash) for split, part in parts.items()]
    fitted = run_phases(
        model,
        [phase],
        generator=torch.Generator().manual_seed(RECIPE["seed"]),
        checkpoint=run.checkpoint,
        checkpoint_every=500,
        tag=run.tag(RECIPE, hashes),
        title=run.name,
    )
    images.save(model, model.config, run.folder)
    model.eval()
    return Report(
        title="digits-vit",
        about=ABOUT.format(parameters=sum(p.numel() for p in model.parameters())),
        data=hashes,
        recipe=RECIPE,
        measured=[
            (f"top-1 accuracy, {split} ({len(x[split]):,} images)", f"{images.accuracy(model, x[split], y[split]):.2%}")
            for split in ("test", "train")
        ],
        fitted=fitted,
        license="apache-2.0",
        notes=["The last weights are taken; the test images chose nothing."],
    )
