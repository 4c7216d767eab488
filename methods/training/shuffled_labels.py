"""The null control of training: the labels belong to other samples."""

from __future__ import annotations

import torch

from harness import Positive, Solution, Split, TrainProblem, Weight, fit, method
from harness.train import optimizers


@method(track="train", role="control")
def shuffled_labels(problem: TrainProblem, *, lr: Positive = 1e-3, weight_decay: Weight = 0.01) -> Solution:
    """AdamW on labels that are shuffled among the training samples: there is nothing to learn but how often each is."""
    data = problem.task.train
    order = torch.randperm(len(data), generator=problem.generator)
    task = problem.task.with_train(Split(data.inputs, data.labels[order], data.ids, data.blocks))
    return fit(problem, task=task, optimizer=optimizers.adamw(lr, weight_decay))
