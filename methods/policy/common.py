"""The loop that these methods share: a rollout, some updates on it, and the next by the policy as it then is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness import BadInput, Phase, PolicyProblem, Solution
from harness.parts.environments import Reasoning
from harness.parts.rl import Rollout
from harness.train.loop import run_phases
from harness.train.schedules import constant

Loss = Callable[[nn.Module, Rollout], Tensor]


def improve(
    problem: PolicyProblem, prepare: Callable[[Rollout], None], loss: Loss, *, lr: float, epochs: int, clip: float = 0.5
) -> Solution:
    """Train the problem's policy: `prepare` adds to a rollout what the updates on it share (advantages), `loss` is
    minimized `epochs` times on each. Adam, with the global norm of gradients clipped."""
    kept: list[Rollout] = []

    def batches(step: int) -> Rollout:
        if step % epochs == 0:
            kept[:] = [problem.rollout()]
            with torch.no_grad():
                prepare(kept[0])
        return kept[0]

    phase = Phase(
        steps=problem.updates * epochs,
        batches=batches,
        loss=lambda model, rollout, generator: loss(model, rollout),
        optimizer=lambda named: torch.optim.Adam(named.values(), lr=lr),
        schedule=constant,
        clip=clip,
    )
    run_phases(problem.model, [phase], generator=problem.generator, meter=problem.meter)
    return Solution(model=problem.model)


def token_mask(rollout: Rollout) -> Tensor:
    """Which tokens (N, T, L) were written: all of every step that was taken."""
    return rollout.mask[..., None].expand_as(rollout.texts)


def require_responses(problem: PolicyProblem, method: str) -> None:
    """BadInput unless an episode is one response, a token a step, with a judge of right answers."""
    if not isinstance(problem.environment, Reasoning):
        raise BadInput(f"{method} is for responses to a prompt; it takes the environment reasoning(...)")


def require_critic(problem: PolicyProblem, method: str) -> None:
    """BadInput unless the policy has a value head."""
    if not hasattr(problem.model, "value"):
        raise BadInput(f"{method} needs a policy with a value head; it takes the environment grid(...)")
