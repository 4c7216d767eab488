"""Reinforcement learning of policies over tokens: rollouts, advantages, and the losses on them.

Shapes: N episodes, T environment steps, L tokens a step. `mask` (N, T) is True for steps that were taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.parts.environments import Environment, Interactions


class TokenPolicy(nn.Module):
    """A recurrent policy over tokens, with a value head. `forward` gives the hidden state (N, S, width) of every
    position; `head` its logits, `value` a scalar."""

    def __init__(self, observations: int, outputs: int, width: int = 64):
        super().__init__()
        self.observations = observations
        self.embed = nn.Embedding(observations + outputs, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, outputs)
        self.critic = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.gru(self.embed(tokens))[0]

    def value(self, hidden: Tensor) -> Tensor:
        return self.critic(hidden).squeeze(-1)


class TabularPolicy(nn.Module):
    """Logits for every state, and nothing shared between them."""

    def __init__(self, observations: int, outputs: int):
        super().__init__()
        self.observations = observations
        self.table = nn.Embedding(observations, outputs)
        nn.init.zeros_(self.table.weight)
        self.head = nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens)


Policy = TokenPolicy | TabularPolicy


@dataclass
class Rollout:
    """What a policy did: `prompts` (N, T, O), `texts` (N, T, L) and their log-probabilities, rewards, and for every
    step whether it was taken, ended the episode, and held a right answer (an oracle's, where there is one)."""

    prompts: Tensor
    texts: Tensor
    logs: Tensor
    rewards: Tensor
    mask: Tensor
    done: Tensor
    right: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    @property
    def returns(self) -> Tensor:
        """Undiscounted return of each episode (N,)."""
        return (self.rewards * self.mask).sum(1)

    @property
    def lengths(self) -> Tensor:
        """Steps of each episode (N,)."""
        return self.mask.sum(1)


def log_probabilities(model: Policy, prompts: Tensor, texts: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(log-probabilities of the texts' tokens (..., L), hidden states they were predicted from (..., L, D), entropies
    (..., L)) of texts (..., L) after prompts (..., O)."""
    shape, length = texts.shape, texts.shape[-1]
    flat = torch.cat([prompts, texts[..., :-1] + model.observations], -1).flatten(0, -2)
    hidden = model(flat)[:, prompts.shape[-1] - 1 :]
    logs = F.log_softmax(model.head(hidden).masked_fill(~allowed, -1e9), -1)
    taken = logs.gather(-1, texts.reshape(-1, length, 1)).squeeze(-1)
    entropy = -(logs.exp() * logs).sum(-1)
    return taken.view(shape), hidden.view(*shape, -1), entropy.view(shape)


@torch.no_grad()
def sample(model: Policy, prompts: Tensor, allowed: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(texts (N, L), their log-probabilities) drawn after prompts (N, O), token by token."""
    tokens, texts, logs = prompts, [], []
    for mask in allowed:
        log = F.log_softmax(model.head(model(tokens)[:, -1]).masked_fill(~mask, -1e9), -1)
        drawn = torch.multinomial(log.exp(), 1, generator=generator)
        texts.append(drawn)
        logs.append(log.gather(1, drawn))
        tokens = torch.cat([tokens, drawn + model.observations], 1)
    return torch.cat(texts, 1), torch.cat(logs, 1)


def rollout(
    model: Policy,
    environment: Environment,
    episodes: int,
    generator: torch.Generator,
    interactions: Interactions | None = None,
) -> Rollout:
    """Whole episodes; those that ended wait, masked, until the last does or the horizon is reached."""
    environment.reset(episodes, generator)
    alive = torch.ones(episodes, dtype=torch.bool)
    rows: list[tuple[Tensor, ...]] = []
    for _ in range(environment.horizon):
        prompts = environment.observe()
        texts, logs = sample(model, prompts, environment.allowed, generator)
        reward, done = environment.step(texts, generator)
        if interactions is not None:
            interactions.add(int(alive.sum()))
        right = getattr(environment, "right", torch.zeros(episodes, dtype=torch.bool)).clone()
        rows.append((prompts, texts, logs, reward * alive, alive, done, right))
        alive = alive & ~done
        if not alive.any():
            break
    prompts, texts, logs, rewards, mask, done, right = (torch.stack(column, 1) for column in zip(*rows, strict=True))
    return Rollout(prompts, texts, logs, rewards, mask, done, right)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantages (N, T) (Schulman et al. 2016, Eq. 16); nothing follows where `mask` is False."""
    advantages, after = torch.zeros_like(rewards), torch.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        goes_on = mask[:, t + 1].float() if t + 1 < rewards.shape[1] else torch.zeros(len(rewards))
        following = values[:, t + 1] if t + 1 < rewards.shape[1] else torch.zeros(len(rewards))
        delta = rewards[:, t] + gamma * goes_on * following - values[:, t]
        after = delta + gamma * lam * goes_on * after
        advantages[:, t] = after
    return advantages * mask


def standardized(advantages: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Mean 0 and deviation 1 over the entries under the mask."""
    kept = advantages[mask]
    return (advantages - kept.mean()) / (kept.std(unbiased=False) + eps) * mask


def grpo_advantage(rewards: Tensor, mask: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """Rewards of a group of rollouts, standardised within the group: (n,), or (n, T) at each position by itself.

    The deviation is the unbiased one. A single rollout has mean 0 and deviation 1.
    """
    if len(rewards) == 1:
        mean, deviation = torch.zeros_like(rewards), torch.ones_like(rewards)
    else:
        mean, deviation = rewards.mean(0, keepdim=True), rewards.std(0, keepdim=True)
    advantages = (rewards - mean) / (deviation + eps)
    return advantages if mask is None else advantages * mask


def ppo_token_loss(
    logs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float, huge: float = torch.inf
) -> Tensor:
    """Clipped surrogate over tokens, a mean over those under the mask (Schulman et al. 2017, Eq. 7).

    All of one shape (N, T, L). Where a ratio exceeds `huge`, only the clipped term is taken.
    """
    ratio = (logs - old).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantages
    surrogate = clipped if bool((ratio[mask] > huge).any()) else torch.minimum(ratio * advantages, clipped)
    return -(surrogate * mask).sum() / mask.sum()


def k3_kl(logs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """KL divergence from a reference policy, estimated without bias and never below zero: exp(d) - d - 1 with d the
    reference's log-probability minus the policy's (Schulman 2020), a mean over tokens under the mask."""
    difference = reference - logs
    return ((difference.exp() - difference - 1) * mask).sum() / mask.sum()
