"""Experience replay: Chaudhry et al., "On Tiny Episodic Memories in Continual Learning" (2019), with the exemplars of
iCaRL (Rebuffi et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness import Batch, Claim, ContinualProblem, Fraction, Positive, Solution, Split, Task, Weight, fit, method
from harness.parts.continual import Exemplars, classes_of, features, herding
from harness.tasks.task import epochs
from harness.train import optimizers


@method(
    track="continual",
    paper="chaudhry2019tiny",
    claims=[
        Claim(
            metric="accuracy",
            than="finetune",
            suite="continual-vision",
            paper="a memory of one sample per class improves on methods without one by 7 to 17%, abstract",
        )
    ],
)
def replay(
    problem: ContinualProblem, *, lr: Positive = 0.05, weight_decay: Weight = 5e-4, momentum: Fraction = 0.9
) -> Solution:
    """Half of each batch comes from a memory of earlier tasks, which holds the samples that herding chooses."""
    return _replay(problem, lr, weight_decay, momentum, herded)


@method(track="continual", role="control")
def random_exemplars(
    problem: ContinualProblem, *, lr: Positive = 0.05, weight_decay: Weight = 5e-4, momentum: Fraction = 0.9
) -> Solution:
    """`replay` with a memory of as many samples drawn at random: the null control of herding."""
    return _replay(problem, lr, weight_decay, momentum, at_random)


Choice = Callable[[ContinualProblem, Task], dict[int, Split]]
"""A rule that chooses a task's exemplars: for each of its classes, samples in the order of their worth."""


def herded(problem: ContinualProblem, task: Task) -> dict[int, Split]:
    """The samples whose mean stays nearest to their class's, in the model's features. Every training sample goes
    forward once, which counts."""
    vectors = features(problem.model, task.train.inputs)
    return _chosen(problem, task, lambda rows: rows[herding(vectors[rows], problem.memory)])


def at_random(problem: ContinualProblem, task: Task) -> dict[int, Split]:
    return _chosen(problem, task, lambda rows: rows[torch.randperm(len(rows), generator=problem.generator)])


def _chosen(problem: ContinualProblem, task: Task, order: Callable[[Tensor], Tensor]) -> dict[int, Split]:
    found = {}
    for label in classes_of(task.train):
        rows = order((task.train.labels == label).nonzero()[:, 0])
        found[label] = task.train.part(rows[: problem.memory])
    return found


def _replay(problem: ContinualProblem, lr: float, weight_decay: float, momentum: float, choose: Choice) -> Solution:
    memory = Exemplars(problem.memory)
    for task in problem.tasks:
        optimizer = optimizers.sgd(lr, weight_decay, momentum)
        batches = half_from(memory, task, problem.budget.batch, problem.seed())
        solution = fit(problem, task=task, optimizer=optimizer, batches=batches, steps=problem.steps())
        problem.after_task(problem.model)
        if problem.memory and task is not problem.tasks[-1]:
            memory.add(choose(problem, task))
    return Solution(model=problem.model, stored={**problem.model.state_dict(), **memory.tensors()}, log=solution.log)


def half_from(memory: Exemplars, task: Task, size: int, seed: int) -> Callable[[int], Batch]:
    """Batches of which half are of the task and half drawn from the memory, once it has any."""
    if not len(memory):
        return task.batches(size, seed)
    new, kept = epochs(task.train, size - size // 2, seed), memory.split()
    if size < 2:
        return new

    def batches(index: int) -> Batch:
        rows = torch.randint(len(kept), (size // 2,), generator=torch.Generator().manual_seed(seed * 100_003 + index))
        fresh, old = new(index), kept.take(rows)
        return Batch(*(torch.cat(pair) for pair in zip(fresh, old, strict=True)))

    return batches
