"""Proximal policy optimization over tokens (Schulman et al. 2017), a baseline of the policy track: every token is a
step, with a value and an advantage of its own, and the value's gradient trains the backbone, too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness import Count, Fraction, PolicyProblem, Positive, Solution, Weight, method
from harness.parts.rl import Rollout, log_probabilities, ppo_token_loss, standardized
from methods.policy.common import improve, require_critic, token_mask


@method(track="policy", paper="schulman2017proximal", tune={"epochs": (2, 4)})
def ppo(
    problem: PolicyProblem,
    *,
    lr: Positive = 1e-3,
    clip: Positive = 0.1,
    value_weight: Weight = 0.5,
    gamma: Fraction = 0.9,
    lam: Fraction = 0.95,
    epochs: Count = 2,
) -> Solution:
    """PPO with a value at every token; the reward comes with a step's last one.

    `gamma` and `lam` discount from environment step to step; within a step nothing is discounted.
    """
    require_critic(problem, "ppo")
    allowed = problem.environment.allowed

    def prepare(rollout: Rollout) -> None:
        _, hidden, _ = log_probabilities(problem.model, rollout.prompts, rollout.texts, allowed)
        values = problem.model.value(hidden)
        advantage = token_advantages(rollout, values, gamma, lam)
        rollout.extra["return"] = advantage + values
        rollout.extra["advantage"] = standardized(advantage, token_mask(rollout))

    def loss(model: nn.Module, rollout: Rollout) -> Tensor:
        logs, hidden, _ = log_probabilities(model, rollout.prompts, rollout.texts, allowed)
        mask = token_mask(rollout)
        actor = ppo_token_loss(logs, rollout.logs, rollout.extra["advantage"], mask, clip)
        errors = torch.where(mask, (model.value(hidden) - rollout.extra["return"]).square(), 0.0)
        return actor + value_weight * errors.sum() / mask.sum()

    return improve(problem, prepare, loss, lr=lr, epochs=epochs)


def token_advantages(rollout: Rollout, values: Tensor, gamma: float, lam: float) -> Tensor:
    """(N, T, L) advantages with every token a step: `gae` by token, discounting between environment steps alone."""
    n, steps, length = values.shape
    advantages, after, following = torch.zeros_like(values), torch.zeros(n), torch.zeros(n)
    for t in reversed(range(steps)):
        goes_on = rollout.mask[:, t + 1].float() if t + 1 < steps else torch.zeros(n)
        for k in reversed(range(length)):
            last = k == length - 1
            discount, decay = (gamma * goes_on, lam) if last else (torch.ones(n), 1.0)
            reward = rollout.rewards[:, t] if last else torch.zeros(n)
            after = reward + discount * following - values[:, t, k] + discount * decay * after
            advantages[:, t, k], following = after, values[:, t, k]
    return advantages * rollout.mask[..., None]
