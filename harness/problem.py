"""What every problem hands its method beside the input of its track."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from harness.train.budget import Budget

if TYPE_CHECKING:
    from harness.tasks import Task


@dataclass(kw_only=True)
class Problem:
    """The part of a problem that training needs.

    `task` is what is learned; every random draw comes from `generator`; `budget` counts and limits passes through the
    models. `folder` is where trainings keep their state, so that a killed trial continues; None keeps nothing.
    """

    task: Task
    generator: torch.Generator
    budget: Budget
    device: torch.device = torch.device("cpu")
    folder: Path | None = None
    trainings: int = field(default=0, init=False)

    def seed(self) -> int:
        """A number drawn from the generator, for what takes a seed."""
        return int(torch.randint(2**31, (), generator=self.generator))
