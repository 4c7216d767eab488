"""What every problem hands its method beside the input of its track."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.train.budget import Budget

if TYPE_CHECKING:
    from torch import nn

    from harness.tasks import Task


@dataclass(kw_only=True)
class Problem:
    """The part of a problem that training needs.

    `task` is what is learned; every random draw comes from `generator`; `budget` counts and limits passes through the
    models. `folder` is where trainings keep their state, so that a killed trial continues; None keeps nothing. A
    training is evaluated so many times (`evaluations`), on dev and by whatever `along` gives of the model: numbers or
    lists of them, which go into the curve.
    """

    task: Task
    generator: torch.Generator
    budget: Budget
    device: torch.device = torch.device("cpu")
    folder: Path | None = None
    trainings: int = field(default=0, init=False)
    evaluations: int = 10
    along: Callable[[nn.Module], Mapping[str, Any]] | None = None

    def seed(self) -> int:
        """A number drawn from the generator, for what takes a seed."""
        return int(torch.randint(2**31, (), generator=self.generator))
