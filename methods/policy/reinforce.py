"""REINFORCE (Williams 1992), the baseline of the policy track."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness import PolicyProblem, Positive, Solution, Weight, method
from harness.parts.rl import Rollout, log_probabilities, standardized
from methods.policy.common import improve, token_mask


@method(track="policy", paper="williams1992simple")
def reinforce(problem: PolicyProblem, *, lr: Positive = 3e-3, entropy: Weight = 0.01) -> Solution:
    """The policy gradient with the reward still to come, standardised over the rollout, and an entropy bonus."""
    allowed = problem.environment.allowed

    def prepare(rollout: Rollout) -> None:
        ahead = (rollout.rewards * rollout.mask).flip(1).cumsum(1).flip(1)
        rollout.extra["advantage"] = standardized(ahead, rollout.mask)

    def loss(model: nn.Module, rollout: Rollout) -> Tensor:
        logs, _, spread = log_probabilities(model, rollout.prompts, rollout.texts, allowed)
        mask = token_mask(rollout)
        gain = logs * rollout.extra["advantage"][..., None] + entropy * spread
        return -torch.where(mask, gain, 0.0).sum() / mask.sum()

    return improve(problem, prepare, loss, lr=lr, epochs=1)
