"""The loss of a taught student, and its training: what the methods of this family share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness import Batch, DistillProblem, LanguageDistillProblem, Solution, fit
from harness.parts.kd import divergences
from harness.parts.softening import Operator
from harness.tasks import per_sample
from harness.train import optimizers
from harness.train.loop import MakeOptimizer
from harness.train.schedules import Schedule

FORWARDS = 2
"""Forward passes of a step: the student's and the teacher's."""
Answer = Callable[[Batch], Tensor]


def teach(
    problem: DistillProblem,
    temperature: float,
    alpha: float,
    operator: Operator = "power",
    *,
    lr: float,
    weight_decay: float,
    optimizer: MakeOptimizer | None = None,
    trains: Callable[[str], bool] | None = None,
    model: nn.Module | None = None,
    weights: Tensor | None = None,
    answer: Answer | None = None,
    steps: int | None = None,
    schedule: Schedule | None = None,
    after: Callable[[nn.Module, int], None] | None = None,
) -> Solution:
    """Train a student (the problem's) on alpha * T^2 KL + (1 - alpha) * cross-entropy, by AdamW or `optimizer`.

    `weights` (training samples,) multiply each sample's loss, whose sum is divided by the batch; `answer(batch)` gives
    logits in the teacher's place; `steps` are all that the budget pays for.
    """

    def answers(batch: Batch) -> Tensor:
        return problem.targets(batch.inputs)

    reply = answer or answers

    def loss(model: nn.Module, batch: Batch, generator: object) -> dict[str, Tensor]:
        logits = problem.task.logits(model, batch.inputs)
        soft = divergences(logits, reply(batch), temperature, operator)
        hard = per_sample(logits, batch.labels)
        weight = 1.0 if weights is None else weights[batch.rows]
        return {"soft": alpha * (weight * soft).mean(), "hard": (1 - alpha) * (weight * hard).mean()}

    return fit(
        problem,
        model=model,
        optimizer=optimizer or optimizers.adamw(lr, weight_decay),
        trains=trains,
        loss=loss,
        steps=problem.budget.steps(forwards=FORWARDS) if steps is None else steps,
        schedule=schedule,
        after=after,
    )


def imitate(
    problem: LanguageDistillProblem, student: nn.Module, hidden: float, lr: float, weight_decay: float
) -> Solution:
    """Train a student that shares the teacher's last layer on KL(teacher || student) plus `hidden` times the mean
    cosine distance between their last hidden states, without the labels."""

    def answers(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
        output = model(input_ids=inputs, use_cache=False, output_hidden_states=True)
        return output.logits, output.hidden_states[-1]

    def loss(model: nn.Module, batch: Batch, generator: object) -> dict[str, Tensor]:
        with torch.no_grad():
            wanted, wanted_hidden = answers(problem.teacher, batch.inputs)
        logits, states = answers(model, batch.inputs)
        cosine = nn.functional.cosine_similarity(states, wanted_hidden, dim=-1)
        return {"soft": divergences(logits, wanted).mean(), "hidden": hidden * (1 - cosine).mean()}

    steps = problem.budget.steps(forwards=FORWARDS)
    if steps < 1:
        return Solution(model=student)
    return fit(problem, model=student, optimizer=optimizers.adamw(lr, weight_decay), loss=loss, steps=steps)
