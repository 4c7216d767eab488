"""What training costs in samples, counted, and the limit a problem sets.

Methods are compared at equal cost, so every model that a problem hands out is watched: samples that go through it are
counted, and one more than granted fails the trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, is_grad_enabled, nn

from harness.errors import TrialFailed


@dataclass
class Passes:
    """Updates, and samples that went forward and backward."""

    steps: int = 0
    forward: int = 0
    backward: int = 0

    def __sub__(self, other: Passes) -> Passes:
        return Passes(self.steps - other.steps, self.forward - other.forward, self.backward - other.backward)


@dataclass
class Meter:
    """Counts the samples that go through the modules it watches.

    A module inside a watched one is not counted again. A forward call made with gradients on counts as followed by a
    backward. Inside `free()` nothing is counted.
    """

    passes: Passes = field(default_factory=Passes)
    paused: bool = False
    depth: int = 0

    def count(self, samples: int) -> None:
        self.passes.forward += samples
        self.passes.backward += samples * is_grad_enabled()
        self.check()

    def step(self) -> None:
        """Count one update."""
        self.passes.steps += 1
        self.check()

    def check(self) -> None:
        """Whether what was counted is allowed: it always is without a limit."""

    @contextmanager
    def free(self) -> Iterator[None]:
        """For evaluations, which are no part of what training costs."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def watch(self, module: nn.Module) -> list[Any]:
        """Count what goes through a module, and through its copies, from now on. Returns the hooks' handles."""

        # Functions, not methods: copying a module copies its hooks, and a copied method would count for a copied meter.
        def enter(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            self.depth += 1

        def leave(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            self.depth -= 1
            if not self.depth and not self.paused:
                batch = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
                self.count(1 if batch is None or batch.ndim == 0 else len(batch))

        before = module.register_forward_pre_hook(enter, with_kwargs=True, prepend=True)
        after = module.register_forward_hook(leave, with_kwargs=True, always_call=True)
        return [before, after]


@dataclass
class Budget(Meter):
    """A meter with a limit: what a problem grants its method.

    `batch` is the samples of a usual step. Raises TrialFailed, with the count, when more than `granted` was taken.
    """

    granted: Passes = field(default_factory=Passes)
    batch: int = 1

    def check(self) -> None:
        for name in ("steps", "forward", "backward"):
            spent, granted = getattr(self.passes, name), getattr(self.granted, name)
            if spent > granted:
                what = "updates" if name == "steps" else f"{name} passes of samples"
                raise TrialFailed(f"the method took {spent} {what}; the problem grants {granted}")

    def steps(self, passes: float = 1, batch: int | None = None, forwards: float | None = None) -> int:
        """Updates that what is left pays for, when each takes `passes` forward and backward passes of a batch;
        `forwards` where it takes more forward than backward passes (a teacher's)."""
        size, forwards = batch or self.batch, passes if forwards is None else forwards
        forward = (self.granted.forward - self.passes.forward) / (forwards * size)
        backward = (self.granted.backward - self.passes.backward) / (passes * size)
        return min(self.granted.steps - self.passes.steps, int(forward), int(backward))


@contextmanager
def counting(modules: Sequence[nn.Module], meter: Meter) -> Iterator[None]:
    """Watch modules for a while."""
    handles = [handle for module in modules for handle in meter.watch(module)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
