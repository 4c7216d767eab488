"""Small environments whose actions are short texts: a grid to walk on, and a model of reasoning out loud.

Many episodes run at once, as tensors. An environment shows `prompt` tokens and takes `length` tokens a step, of which
`allowed` (length, outputs) says which may stand where.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from harness.errors import BadInput, TrialFailed, nearest
from harness.params import Count, Fraction, Range, bind, complete, parse_expression, signature_params


@dataclass
class Interactions:
    """Environment steps taken, and how many are granted. Raises TrialFailed for one more."""

    granted: int
    taken: int = 0

    def add(self, steps: int) -> None:
        self.taken += steps
        if self.taken > self.granted:
            raise TrialFailed(f"the method took {self.taken} environment steps; the problem grants {self.granted}")


@dataclass
class Grid:
    """A walk to a goal on a `size` x `size` grid. A step's text is `thoughts` free tokens and then a move.

    The prompt is two tokens: the agent's cell and the goal's. Reaching the goal gives 1, every step costs 0.02.
    """

    size: int
    thoughts: int
    horizon: int
    words: int = 4
    prompt: int = 2
    position: Tensor = field(default_factory=lambda: torch.zeros(0))
    goal: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def length(self) -> int:
        return self.thoughts + 1

    @property
    def outputs(self) -> int:
        return self.words + 4

    @property
    def observations(self) -> int:
        return 2 * self.size**2

    @property
    def allowed(self) -> Tensor:
        mask = torch.zeros(self.length, self.outputs, dtype=torch.bool)
        mask[: self.thoughts, : self.words] = True
        mask[self.thoughts, self.words :] = True
        return mask

    def reset(self, episodes: int, generator: torch.Generator) -> None:
        cells = self.size**2
        start = torch.randint(cells, (episodes,), generator=generator)
        goal = (start + torch.randint(1, cells, (episodes,), generator=generator)) % cells
        self.position, self.goal = (torch.stack([at // self.size, at % self.size], 1) for at in (start, goal))

    def observe(self) -> Tensor:
        cell = self.position[:, 0] * self.size + self.position[:, 1]
        goal = self.goal[:, 0] * self.size + self.goal[:, 1]
        return torch.stack([cell, goal + self.size**2], 1)

    def step(self, text: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(reward, done) of a step (episodes, length) of text."""
        moves = torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 1]])
        self.position = (self.position + moves[text[:, -1] - self.words]).clamp(0, self.size - 1)
        done = (self.position == self.goal).all(1)
        return done.float() - 0.02, done


WORK, ANSWER, WAIT, STOP = range(4)


@dataclass
class Reasoning:
    """A model of reasoning out loud, one token a step: work, answer, wait (which begins a new chunk), stop.

    An answer is right with probability 0.9 after at least two tokens of work, else 0.1; what counts is the last answer
    before the end. The prompt is one token: how much work was done (0 to 3) and whether an answer was given.
    """

    horizon: int
    skill: float
    prompt: int = 1
    length: int = 1
    outputs: int = 4
    observations: int = 8
    work: Tensor = field(default_factory=lambda: torch.zeros(0))
    answered: Tensor = field(default_factory=lambda: torch.zeros(0))
    right: Tensor = field(default_factory=lambda: torch.zeros(0))
    at: int = 0

    @property
    def allowed(self) -> Tensor:
        return torch.ones(1, 4, dtype=torch.bool)

    def reset(self, episodes: int, generator: torch.Generator) -> None:
        self.work = torch.zeros(episodes, dtype=torch.long)
        self.answered = torch.zeros(episodes, dtype=torch.bool)
        self.right = torch.zeros(episodes, dtype=torch.bool)
        self.at = 0

    def observe(self) -> Tensor:
        return (self.work + 4 * self.answered)[:, None]

    def step(self, text: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        token = text[:, 0]
        chance = torch.where(self.work >= 2, self.skill, 1 - self.skill)
        drawn = torch.rand(len(token), generator=generator) < chance
        self.right = torch.where(token == ANSWER, drawn, self.right)
        self.answered = self.answered | (token == ANSWER)
        self.work = torch.where(token == WORK, (self.work + 1).clamp(max=3), self.work)
        self.at += 1
        done = (token == STOP) | (self.at >= self.horizon)
        return (done & self.right).float(), done


Environment = Grid | Reasoning


def grid(*, size: Count = 5, thoughts: Annotated[int, Range(0, None)] = 2, horizon: Count = 20) -> Environment:
    """A walk to a goal, with free tokens before each move."""
    return Grid(size, thoughts, horizon)


def reasoning(*, horizon: Count = 24, skill: Fraction = 0.9) -> Environment:
    """Work, answer, wait, stop."""
    return Reasoning(horizon, skill)


ENVIRONMENTS: dict[str, Callable[..., Environment]] = {"grid": grid, "reasoning": reasoning}


def make_environment(text: str) -> Environment:
    """The environment of an expression such as `grid(size=5)`. Raises BadInput for an unknown name or parameter."""
    expression = parse_expression(text)
    if expression.name not in ENVIRONMENTS:
        raise BadInput(f"unknown environment {text!r}; {nearest(expression.name, ENVIRONMENTS)}")
    maker = ENVIRONMENTS[expression.name]
    params = signature_params(maker, expression.name)
    points = list(bind(expression, params, expression.name))
    if len(points) != 1:
        raise BadInput(f"environment {text!r} is a grid of {len(points)}; name one")
    return maker(**complete(points[0], params))
