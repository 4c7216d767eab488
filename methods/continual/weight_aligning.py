"""WA: Zhao et al., "Maintaining Discrimination and Fairness in Class Incremental Learning" (2020)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import Batch, Claim, ContinualProblem, Fraction, Positive, Solution, Weight, fit, method
from harness.parts.continual import Exemplars, classes_of, head_of, joined, seen_only
from harness.train import optimizers
from methods.continual.replay import herded


@method(
    track="continual",
    paper="zhao2020wa",
    tune={"temperature": (1.0, 2.0, 4.0)},
    claims=[
        Claim(
            metric="accuracy",
            than="weight_aligning(align=False)",
            suite="continual-vision",
            params={"align": True},
            paper="CIFAR-100 and ImageNet: aligning the weights corrects the bias that distillation leaves, abstract",
        )
    ],
)
def weight_aligning(
    problem: ContinualProblem,
    *,
    lr: Positive = 0.05,
    weight_decay: Weight = 2e-4,
    momentum: Fraction = 0.9,
    temperature: Positive = 2.0,
    clip_weights: bool = True,
    align: bool = True,
) -> Solution:
    """The old model is distilled, and then the new classes' rows of the head are scaled to the old ones' mean norm.

    (1 - w) CE + w KD on the new data and the exemplars together, w = old classes / classes, KD the cross-entropy to the
    old model's softened answers on the old classes. The head has no bias (it stays at 0) and, with
    `clip_weights`, no negative weights after any step. After the task, gamma = mean norm of the old rows
    / mean norm of the new ones scales the new rows; `log` keeps it. `align=False` is distillation alone.
    Exemplars are chosen by herding.
    """
    model, memory, gammas = problem.model, Exemplars(problem.memory), []
    head = head_of(model)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    bias = next((name for name, parameter in model.named_parameters() if parameter is head.bias), None)
    clip = (lambda model, step: head_of(model).weight.data.clamp_(min=0)) if clip_weights else None
    old: list[int] = []
    for task in problem.tasks:
        seen, new = problem.seen, classes_of(task.train)
        teacher = copy.deepcopy(model).requires_grad_(False).eval() if old else None
        data = task.with_train(joined([task.train, memory.split()])) if len(memory) else task
        solution = fit(
            problem,
            task=data,
            optimizer=optimizers.sgd(lr, weight_decay, momentum),
            loss=incremental_loss(teacher, old, seen, temperature),
            steps=problem.steps(forward=2 if old else 1),
            trains=lambda name: name != bias,
            after=clip,
        )
        if old and align:
            gammas.append(align_rows(head, old, new))
        problem.after_task(model)
        if problem.memory and task is not problem.tasks[-1]:
            memory.add(herded(problem, task))
        old = seen
    log = {**solution.log, "gamma": gammas}
    return Solution(model=model, stored={**model.state_dict(), **memory.tensors()}, log=log)


def incremental_loss(teacher: nn.Module | None, old: list[int], seen: list[int], temperature: float):
    """The loss of a phase: cross-entropy over the classes seen, and distillation of the old ones from the teacher."""
    share = len(old) / len(seen)

    def loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        logits = model(batch.inputs)
        new = F.cross_entropy(seen_only(logits, seen), batch.labels)
        if teacher is None:
            return new
        with torch.no_grad():
            target = torch.softmax(teacher(batch.inputs)[:, old] / temperature, -1)
        return (1 - share) * new + share * F.cross_entropy(logits[:, old] / temperature, target)

    return loss


@torch.no_grad()
def align_rows(head: nn.Linear, old: list[int], new: list[int]) -> float:
    """Scale the new classes' rows of a head to the old ones' mean norm, in place; the factor gamma."""
    norms = head.weight.norm(dim=1)
    gamma = float(norms[old].mean() / norms[new].mean())
    head.weight[new] *= gamma
    return gamma
