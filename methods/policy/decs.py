"""Overthinking reduction with decoupled rewards and curriculum data scheduling (2025), DECS: only the tokens after the
part of a response that was needed get less for its length.

The environment has one prompt, so the curriculum over prompts (step 5 of the card) has nothing to choose from here;
`easy_part` is its rule, tested by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness import Claim, Count, PolicyProblem, Positive, Solution, Weight, method
from harness.parts.environments import ANSWER, WAIT
from harness.parts.rl import Rollout, grpo_advantage, log_probabilities, ppo_token_loss
from methods.policy.common import improve, require_responses, token_mask

PAPER = "over 50% fewer reasoning tokens on seven benchmarks at equal or better accuracy"


@method(
    track="policy",
    paper="jiang2026overthinking",
    claims=[Claim(metric="episode_length", than="grpo(length_penalty=0.0)", suite="policy-reasoning", paper=PAPER)],
    tune={"epochs": (1, 2)},
)
def decs(
    problem: PolicyProblem, *, lr: Positive = 0.05, clip: Positive = 0.2, beta: Weight = 0.1, epochs: Count = 1
) -> Solution:
    """Token rewards that fall with the length after the first chunk with a right answer, standardised by position.

    A response is cut into chunks at its waits. Tokens up to the first chunk that holds a right answer, and those after
    the last redundant one, get 1 + beta; those between get 1 + beta (1 - length / longest). A wrong response gets 0.
    """
    require_responses(problem, "decs")
    allowed, horizon = problem.environment.allowed, problem.environment.horizon

    def prepare(rollout: Rollout) -> None:
        rewards = token_rewards(rollout, beta, horizon)
        rollout.extra["advantage"] = grpo_advantage(rewards, rollout.mask)

    def loss(model: nn.Module, rollout: Rollout) -> Tensor:
        logs, _, _ = log_probabilities(model, rollout.prompts, rollout.texts, allowed)
        advantage = rollout.extra["advantage"][..., None]
        return ppo_token_loss(logs, rollout.logs, advantage, token_mask(rollout), clip)

    return improve(problem, prepare, loss, lr=lr, epochs=epochs, clip=torch.inf)


def token_rewards(rollout: Rollout, beta: float, longest: int) -> Tensor:
    """(N, T) rewards of tokens; positions after a response's end hold the reward of its other tokens, as the mean and
    deviation by position need one for every response (step 4 of the card, as released)."""
    correct = rollout.returns > 0
    redundant = redundant_tokens(rollout)
    less = 1 + beta * (1 - rollout.lengths[:, None] / longest)
    return torch.where(redundant, less, 1 + beta) * correct[:, None]


def redundant_tokens(rollout: Rollout) -> Tensor:
    """(N, T) True for tokens of a right response in chunks after the first that holds a right answer, up to the last
    answer; the end (the final stop) is not redundant. A chunk ends before a wait."""
    tokens = rollout.texts[..., 0]
    chunk = (tokens == WAIT).cumsum(1)
    holds = (tokens == ANSWER) & rollout.right & rollout.mask
    needed = torch.where(holds, chunk, tokens.shape[1]).amin(1, keepdim=True)
    last = rollout.lengths[:, None] - 1
    inside = torch.arange(tokens.shape[1]) < last
    return (chunk > needed) & inside & rollout.mask & (rollout.returns > 0)[:, None]


def necessary_ratio(rollout: Rollout) -> Tensor:
    """(N,) chunks up to the first with a right answer, over all of a response's chunks; 1 where none is right."""
    tokens = torch.where(rollout.mask, rollout.texts[..., 0], -1)
    chunk = (tokens == WAIT).cumsum(1)
    holds = (tokens == ANSWER) & rollout.right & rollout.mask
    count = chunk.amax(1) + 1
    first = torch.where(holds, chunk, tokens.shape[1]).amin(1) + 1
    return torch.where(holds.any(1), first / count, torch.ones(len(tokens)))


def easy_part(kappa: float, step: float, ratio: float, before: float) -> float:
    """The part of easy prompts in the next batch: it rises while responses become more to the point (step 5)."""
    return min(0.99, max(0.0, kappa + step * (ratio - before)))
