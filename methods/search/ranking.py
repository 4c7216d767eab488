"""What the searches share: a supernet's training, the ranking of its architectures, and the training of the chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from harness import Batch, SearchProblem, Solution, TrialFailed, fit
from harness.parts.elastic import recalibrate
from harness.search.space import Arch
from harness.tasks import evaluate
from harness.tracks.search import predictions
from harness.train import optimizers
from harness.train.schedules import Schedule

CALIBRATION = 128
"""Training samples from which batch norms are estimated."""
Sampler = Callable[[Batch], Sequence[Arch]]


def train_supernet(
    problem: SearchProblem,
    sampler: Sampler,
    steps: int,
    *,
    paths: int = 1,
    lr: float,
    weight_decay: float,
    batches: Callable[[int], Batch] | None = None,
    seen: Callable[[Arch, Batch, Tensor], None] | None = None,
    after: Callable[[nn.Module, int], None] | None = None,
    schedule: Schedule | None = None,
) -> Solution:
    """Train the supernet for `steps` updates of `paths` architectures each, which `sampler(batch)` draws.

    The loss is the mean over them of the cross-entropy. `seen(arch, batch, logits)` looks at every answer.
    """

    def loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        losses = []
        for arch in sampler(batch):
            logits = problem.task.logits(problem.subnet(arch), batch.inputs)
            losses.append(nn.functional.cross_entropy(logits.flatten(0, -2), batch.labels.flatten()))
            if seen:
                seen(arch, batch, logits.detach())
        return torch.stack(losses).mean()

    return fit(
        problem, model=problem.supernet, optimizer=optimizers.adamw(lr, weight_decay), loss=loss, batches=batches,
        steps=steps, passes=paths, after=after, schedule=schedule,
    )  # fmt: skip


def inherited(problem: SearchProblem, arch: Arch) -> nn.Module:
    """An architecture with the supernet's weights, its batch norms estimated on training samples."""
    model = problem.export(arch)
    inputs = problem.task.train.inputs[:CALIBRATION]
    return recalibrate(model, inputs.split(max(2, problem.budget.batch)))


def development_loss(problem: SearchProblem, model: nn.Module) -> float:
    """The mean loss on the development split; the passes count."""
    return float(evaluate(problem.task, model, problem.task.dev)["loss"].mean())


def rank(problem: SearchProblem, archs: Sequence[Arch], alone: int = 0) -> dict[Arch, float]:
    """The negative development loss of architectures with the supernet's weights, as many of them as the passes granted
    pay for when the chosen one is then trained for `alone` updates."""
    each = len(problem.task.dev) + min(CALIBRATION, len(problem.task.train))
    budget = problem.budget
    left = budget.granted.forward - budget.passes.forward - max(alone * budget.batch, CALIBRATION)
    if left < each:
        raise TrialFailed(f"ranking takes {each} forward passes for each architecture; {max(0, left)} are left")
    return {arch: -development_loss(problem, inherited(problem, arch)) for arch in archs[: left // each]}


def shared(problem: SearchProblem, retrain: float, paths: int = 1) -> tuple[int, int]:
    """Updates for the supernet, of `paths` passes each, and passes for training the chosen architecture alone."""
    total = problem.budget.steps()
    alone = min(total - paths, round(retrain * total))
    return max(1, (total - alone) // paths), alone


def chosen(
    problem: SearchProblem, scores: Mapping[Arch, float], alone: int, *, lr: float, weight_decay: float
) -> Solution:
    """The best of a ranking: trained alone from fresh weights for `alone` updates, or as it is in the supernet."""
    best = max(scores, key=lambda arch: scores[arch])
    found = trained(problem, best, alone, lr=lr, weight_decay=weight_decay) if alone else Solution()
    if not alone:
        found.model = inherited(problem, best)
    found.arch = best
    found.log |= {"predicted": predictions(problem.space, scores), "arch": problem.space.name(best)}
    return found


def trained(problem: SearchProblem, arch: Arch, steps: int, *, lr: float, weight_decay: float) -> Solution:
    """One architecture trained alone from fresh weights."""
    model = problem.fresh(arch)
    return fit(problem, model=model, optimizer=optimizers.adamw(lr, weight_decay), steps=steps)
