"""Enhancing vision-language model training with reinforcement learning in synthetic worlds (2025): a decoupled
actor-critic. The ratio and its clipping are per token; the value and the advantage are per environment step, and the
value's gradient does not reach the backbone. (The released README expands the name otherwise; this follows the paper.)
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from harness import Claim, Count, Fraction, PolicyProblem, Positive, Solution, Weight, method
from harness.parts.rl import Rollout, gae, k3_kl, log_probabilities, ppo_token_loss, standardized
from methods.policy.common import improve, require_critic, token_mask

HUGE = 10.0
"""A ratio above this is not trusted: only the clipped term is taken (released code)."""


@method(
    track="policy",
    paper="bredis2025enhancing",
    claims=[
        Claim(
            metric="training_return",
            than="ppo",
            suite="policy-small",
            paper="step-level values learn faster and more reliably than token-level ones (BALROG +50% relative)",
        )
    ],
    tune={"epochs": (2, 4)},
)
def vl_dac(
    problem: PolicyProblem,
    *,
    lr: Positive = 1e-3,
    clip: Positive = 0.1,
    value_weight: Weight = 0.5,
    kl: Weight = 0.04,
    gamma: Fraction = 0.9,
    lam: Fraction = 0.95,
    epochs: Count = 2,
) -> Solution:
    """PPO per token with one value and one advantage per environment step.

    The advantage is the generalised one over steps, standardised over the rollout (steps 3 and 4 of the card); `kl`
    weighs the divergence per token from the policy as it was at the start; the value's loss is clipped like the ratio.
    The learning rate is ours: the paper's is for a pretrained model of billions of parameters.
    """
    require_critic(problem, "vl_dac")
    allowed = problem.environment.allowed
    reference = copy.deepcopy(problem.model).requires_grad_(False)

    def prepare(rollout: Rollout) -> None:
        values = step_values(problem.model, rollout)
        advantage = gae(rollout.rewards, values, rollout.mask, gamma, lam)
        rollout.extra["value"], rollout.extra["return"] = values, advantage + values
        rollout.extra["advantage"] = standardized(advantage, rollout.mask)
        rollout.extra["reference"], _, _ = log_probabilities(reference, rollout.prompts, rollout.texts, allowed)

    def loss(model: nn.Module, rollout: Rollout) -> Tensor:
        logs, _, _ = log_probabilities(model, rollout.prompts, rollout.texts, allowed)
        mask = token_mask(rollout)
        advantage = rollout.extra["advantage"][..., None].expand_as(logs)
        actor = ppo_token_loss(logs, rollout.logs, advantage, mask, clip, HUGE)
        critic = clipped_value_loss(step_values(model, rollout), rollout, clip)
        return actor + kl * k3_kl(logs, rollout.extra["reference"], mask) + value_weight * critic

    return improve(problem, prepare, loss, lr=lr, epochs=epochs)


def step_values(model: nn.Module, rollout: Rollout) -> Tensor:
    """(N, T) values of the states before any token is written: of the last prompt token's hidden state, from which no
    gradient flows back."""
    hidden = model(rollout.prompts.flatten(0, 1))[:, -1]
    return model.value(hidden.detach()).view(rollout.mask.shape)


def clipped_value_loss(values: Tensor, rollout: Rollout, clip: float) -> Tensor:
    """Mean over steps of the larger of two squared errors: the value's, and that of one held near the rollout's."""
    old, target = rollout.extra["value"], rollout.extra["return"]
    near = old + (values - old).clamp(-clip, clip)
    worse = torch.maximum((values - target).square(), (near - target).square())
    return (worse * rollout.mask).sum() / rollout.mask.sum()
