"""`fit`: train on a problem, in one call. What the problem knows is filled in: data, loss, budget, seed, where to keep
the state of a training that may be killed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import nn

from harness.errors import BadInput
from harness.randomness import restored_random_state
from harness.solution import Solution
from harness.train.loop import Loss, MakeOptimizer, Phase, run_phases
from harness.train.schedules import Schedule, cosine

if TYPE_CHECKING:
    from harness.problem import Problem
    from harness.tasks import Batch, Task

POINTS = 20
"""Rows of the training curve that a record keeps, at the most."""
KEEP_SECONDS = 20.0
"""How often a training in a trial keeps its state."""


def fit(
    problem: Problem,
    *,
    optimizer: MakeOptimizer,
    model: nn.Module | None = None,
    task: Task | None = None,
    loss: Loss | None = None,
    batches: Callable[[int], Batch] | None = None,
    steps: int | None = None,
    batch: int | None = None,
    passes: float = 1,
    schedule: Schedule | None = None,
    trains: Callable[[str], bool] | None = None,
    after: Callable[[nn.Module, int], None] | None = None,
    accumulate: int = 1,
    clip: float | None = 1.0,
) -> Solution:
    """Train `model` (the problem's) in place, and give it back with its curve.

    `steps` are all that the budget pays for when each takes `passes` forward and backward passes of a batch; `batches`
    are shuffled epochs over the task's training data; `loss(model, batch, generator)` is the task's; the `schedule` a
    cosine to zero after a warm-up of 5% of the steps. The other arguments are those of `harness.train.loop.Phase`.
    Raises TrialFailed when the budget is exceeded, or when the loss is no longer finite, naming the step.
    """
    task = task or problem.task
    size = batch or problem.budget.batch
    steps = problem.budget.steps(passes * accumulate, size) if steps is None else steps
    phase = Phase(
        steps=steps,
        batches=batches or task.batches(size, problem.seed()),
        loss=loss or task.loss,
        optimizer=optimizer,
        schedule=schedule or cosine(warmup=steps // 20),
        trains=trains,
        after=after,
        accumulate=accumulate,
        clip=clip,
    )
    return fit_phases(problem, [phase], model=model, task=task)


def fit_phases(
    problem: Problem, phases: Sequence[Phase], *, model: nn.Module | None = None, task: Task | None = None
) -> Solution:
    """Train through several phases; see `Phase` for what one is."""
    model = model if model is not None else problem.model  # type: ignore[attr-defined]
    total = sum(phase.steps for phase in phases)
    if total < 1:
        raise BadInput(f"the budget leaves {total} steps for training; it takes at least 1")
    problem.trainings += 1
    file = problem.folder / f"training-{problem.trainings}.pt" if problem.folder else None
    fitted = run_phases(
        model,
        phases,
        generator=problem.generator,
        evaluate=developing(problem, task or problem.task),
        evaluate_every=max(1, total // problem.evaluations),
        log_every=max(1, total // POINTS),
        meter=problem.budget,
        checkpoint=file,
        checkpoint_seconds=KEEP_SECONDS,
    )
    return Solution(
        model=model, log={"curve": [_point(row) for row in fitted.history], "passes": asdict(fitted.passes)}
    )


def _point(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a record's curve keeps of a row of history: the loss of a step, all that an evaluation found."""
    left_out = ("phase",) if "dev_loss" in row else [key for key in row if key not in ("step", "loss")]
    return {key: value for key, value in row.items() if key not in left_out}


def developing(problem: Problem, task: Task) -> Callable[[nn.Module], dict[str, Any]]:
    """The loss on the development split and what the problem looks at along the way. It is no part of the cost."""
    from harness.tasks import evaluate

    def score(model: nn.Module) -> dict[str, Any]:
        with problem.budget.free(), restored_random_state():
            found = {"dev_loss": float(evaluate(task, model, task.dev)["loss"].mean())}
            return found | dict(problem.along(model) if problem.along else {})

    return score
