"""DKVB: Träuble et al., "Discrete Key-Value Bottleneck" (2023)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from harness import Claim, ContinualProblem, Count, Positive, Solution, fit, method
from harness.parts.vq import ema_codebooks, nearest_codes
from harness.train import optimizers
from harness.train.schedules import constant


class KeyValueBottleneck(nn.Module):
    """C codebooks of K pairs: a frozen key of width d, a trainable value with a number for each class.

    Inputs (N, ...) are flattened to (N, m) and projected by fixed Gaussian matrices (C, m, d); of each codebook the
    value of the nearest key is fetched, and their mean is the logits (N, classes).
    """

    def __init__(self, projections: Tensor, classes: int):
        super().__init__()
        self.register_buffer("projections", projections)
        self.register_buffer("keys", torch.empty(0))
        self.classes = classes

    def project(self, inputs: Tensor) -> Tensor:
        """(N, ...) -> (C, N, d)."""
        return inputs.flatten(1) @ self.projections

    def freeze(self, keys: Tensor) -> None:
        """Take the keys (C, K, d), with values of zero."""
        self.keys = keys
        self.values = nn.Parameter(torch.zeros(*keys.shape[:2], self.classes))

    def fetched(self, inputs: Tensor) -> Tensor:
        """(N, ...) -> (C, N): the places of the nearest keys."""
        return nearest_codes(self.project(inputs), self.keys)

    def forward(self, inputs: Tensor) -> Tensor:
        places = self.fetched(inputs)
        return self.values.take_along_dim(places[..., None], 1).mean(0)


@method(
    track="continual",
    paper="trauble2023dkvb",
    claims=[
        Claim(
            metric="accuracy",
            than="finetune",
            suite="continual-vision",
            paper="class-incremental CIFAR-10 without task boundaries: far less forgetting than fine-tuned heads",
        )
    ],
)
def dkvb(
    problem: ContinualProblem,
    *,
    codebooks: Count = 32,
    codes: Count = 128,
    key_width: Count = 8,
    lr: Positive = 30.0,
    keys: Literal["all", "first"] = "all",
) -> Solution:
    """Each input touches only the values of its nearest keys, so learning new classes hardly disturbs old ones.

    The inputs, or the features of the problem's encoder, are projected to `codebooks` random spaces (Glorot), in each
    of which `codes` keys are learned by moving averages without labels and then frozen; only values train, by plain
    gradient descent (momentum or decay would move those that are not fetched). The problem's model is not used. With
    `keys="all"` the keys see the unlabelled inputs of all tasks, with "first" of the first alone: the strict control.
    The rate suits the mean over codebooks, which divides each value's gradient by their number.
    """
    source = problem.unlabelled if keys == "all" else problem.tasks[0].train.inputs
    width = source[0].numel()
    scale = (2 / (width + key_width)) ** 0.5
    projections = torch.randn(codebooks, width, key_width, generator=problem.generator) * scale
    model = KeyValueBottleneck(projections, problem.task.classes)
    model.freeze(ema_codebooks(model.project(source), codes, problem.generator))
    for task in problem.tasks:
        solution = fit(
            problem,
            model=model,
            task=task,
            optimizer=optimizers.sgd(lr, momentum=0.0, nesterov=False),
            steps=problem.steps(),
            schedule=constant,
            clip=None,
        )
        problem.after_task(model)
    return solution
