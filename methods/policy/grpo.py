"""Group relative policy optimization (Shao et al. 2024): the advantage of a response is its reward, standardised among
the responses to one prompt. A baseline of the policy track."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness import Count, PolicyProblem, Positive, Solution, Weight, method
from harness.parts.rl import Rollout, grpo_advantage, log_probabilities, ppo_token_loss
from methods.policy.common import improve, require_responses, token_mask


@method(track="policy", paper="shao2024deepseekmath", tune={"epochs": (1, 2)})
def grpo(
    problem: PolicyProblem,
    *,
    lr: Positive = 0.05,
    clip: Positive = 0.2,
    epochs: Count = 1,
    length_penalty: Weight = 0.0,
) -> Solution:
    """PPO's clipped loss with the standardised reward of the whole response as every token's advantage.

    `length_penalty` takes that much, times the part of the longest possible length that a right response has, from its
    reward: the usual way to make responses shorter, here for comparison. The learning rate is for a table of logits.
    """
    require_responses(problem, "grpo")
    allowed, horizon = problem.environment.allowed, problem.environment.horizon

    def prepare(rollout: Rollout) -> None:
        right = rollout.returns
        reward = right * (1 - length_penalty * rollout.lengths / horizon)
        rollout.extra["advantage"] = grpo_advantage(reward)[:, None] * rollout.mask

    def loss(model: nn.Module, rollout: Rollout) -> Tensor:
        logs, _, _ = log_probabilities(model, rollout.prompts, rollout.texts, allowed)
        advantage = rollout.extra["advantage"][..., None]
        return ppo_token_loss(logs, rollout.logs, advantage, token_mask(rollout), clip)

    return improve(problem, prepare, loss, lr=lr, epochs=epochs, clip=torch.inf)
