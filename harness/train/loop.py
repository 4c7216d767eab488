"""The training loop under every track: phases of steps over batches, in plain PyTorch.

What a method brings is functions: batches by index, a loss, an optimizer of the parameters that train. The loop owns
what must be right everywhere: accumulation, clipping, schedules, counted passes, and checkpoints from which a killed
run ends in the same weights, bit for bit. A method calls `harness.fit`, which fills in what its problem knows.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import BadInput, TrialFailed
from harness.train.budget import Meter, Passes, counting
from harness.train.progress import progress
from harness.train.schedules import Schedule, constant

Loss = Callable[[nn.Module, Any, torch.Generator], Tensor | Mapping[str, Tensor]]
MakeOptimizer = Callable[[dict[str, nn.Parameter]], torch.optim.Optimizer | Sequence[torch.optim.Optimizer]]


@dataclass(frozen=True)
class Phase:
    """One stage of training.

    `batches(i)` gives batch i (a position is a number, so nothing else has to be restored); `loss` a scalar, or terms
    that are added; `optimizer` one or several optimizers of the named parameters that train (all, or where
    `trains(name)`). `start(model)` runs once before the first step, `after(model, step)` after every update (to project
    weights, say). A step averages `accumulate` batches.
    """

    steps: int
    batches: Callable[[int], Any]
    loss: Loss
    optimizer: MakeOptimizer
    name: str = "train"
    schedule: Schedule = constant
    trains: Callable[[str], bool] | None = None
    start: Callable[[nn.Module], None] | None = None
    after: Callable[[nn.Module, int], None] | None = None
    accumulate: int = 1
    clip: float | None = 1.0


@dataclass
class Fitted:
    """What `run_phases` leaves beside the model: a row per logged step or evaluation, the passes taken, the seconds."""

    history: list[dict[str, Any]] = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)
    seconds: float = 0.0
    complete: bool = False

    def evaluations(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of every evaluation that has `key`."""
        return [(row["step"], row[key]) for row in self.history if key in row]


def run_phases(
    model: nn.Module,
    phases: Sequence[Phase],
    *,
    generator: torch.Generator,
    evaluate: Callable[[nn.Module], Mapping[str, Any]] | None = None,
    evaluate_every: int = 0,
    log_every: int = 10,
    autocast: torch.dtype | None = None,
    counted: Sequence[nn.Module] = (),
    meter: Meter | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 0,
    checkpoint_seconds: float = math.inf,
    tag: str = "",
    stop_after: int | None = None,
    title: str = "",
) -> Fitted:
    """Train `model` in place through all phases.

    `evaluate` runs every `evaluate_every` steps and after each phase; its passes are free, its values numbers or lists
    of numbers. `counted` are further
    modules (a teacher) whose passes count, `meter` is what counts them: a budget has a limit. With a `checkpoint` file,
    the state is kept there every `checkpoint_every` steps or `checkpoint_seconds`, and a later call continues from it;
    `tag` names what is trained, so that a file of another run is refused (BadInput). `stop_after` ends early after so
    many steps, resumable. Progress is shown under `title`, if any. Raises TrialFailed when the loss or the gradient is
    no longer finite.
    """
    run = _Run(model, phases, generator, tag, Fitted(), meter or Meter())
    position = run.restore(checkpoint) if checkpoint and checkpoint.exists() else (0, 0)
    total, kept = sum(phase.steps for phase in phases), time.perf_counter()
    began = kept - run.fitted.seconds

    def keep() -> None:
        nonlocal kept
        kept = time.perf_counter()
        run.fitted.seconds = kept - began
        run.fitted.passes = run.meter.passes - run.before
        if checkpoint:
            run.save(checkpoint, position)

    with (
        _as_found(model),
        _global_seed(generator, run.global_state),
        counting((model, *counted), run.meter),
        progress(title, total, done=run.steps, show=bool(title)) as advance,
    ):
        model.train()
        for index, phase in enumerate(phases):
            if index < position[0]:
                continue
            step = position[1] if index == position[0] else 0
            run.enter(phase, fresh=step == 0)
            while step < phase.steps:
                row = _step(run, phase, step, autocast)
                step, position = step + 1, (index, step + 1)
                done = run.steps
                if done % log_every == 0 or step == phase.steps:
                    run.fitted.history.append(row)
                if evaluate and (step == phase.steps or (evaluate_every and done % evaluate_every == 0)):
                    with run.meter.free():
                        run.fitted.history.append(_evaluate(run, phase, evaluate))
                advance(done, _note(run.fitted.history, row))
                stop = stop_after is not None and done >= stop_after
                due = checkpoint_every and done % checkpoint_every == 0
                if stop or due or time.perf_counter() - kept > checkpoint_seconds:
                    keep()
                if stop:
                    return run.fitted
        run.fitted.complete = True
        keep()
    return run.fitted


@dataclass
class _Run:
    """The state that a checkpoint holds."""

    model: nn.Module
    phases: Sequence[Phase]
    generator: torch.Generator
    tag: str
    fitted: Fitted
    meter: Meter
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)
    global_state: Tensor | None = None
    _pending: list[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        self.before = replace(self.meter.passes)

    @property
    def steps(self) -> int:
        """Updates since the start, those of an interrupted run included."""
        return self.meter.passes.steps - self.before.steps

    @property
    def plan(self) -> str:
        shapes = {name: list(tensor.shape) for name, tensor in self.model.state_dict().items()}
        phases = [[phase.name, phase.steps, phase.accumulate] for phase in self.phases]
        return json.dumps([self.tag, phases, shapes])

    def enter(self, phase: Phase, *, fresh: bool) -> None:
        """Choose what trains and make its optimizers; a phase entered in its middle takes up their saved states."""
        if fresh and phase.start:
            phase.start(self.model)
        named = dict(self.model.named_parameters())
        for name, parameter in named.items():
            parameter.requires_grad_(phase.trains(name) if phase.trains else True)
        training = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        made = phase.optimizer(training)
        self.optimizers = [made] if isinstance(made, torch.optim.Optimizer) else list(made)
        self.parameters = list(training.values())
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        if not fresh and self._pending:
            for optimizer, state in zip(self.optimizers, self._pending, strict=True):
                optimizer.load_state_dict(state)
        self._pending = None

    def save(self, path: Path, position: tuple[int, int]) -> None:
        """Write the whole state, or leave the file as it was."""
        state = {
            "plan": self.plan,
            "position": position,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "global": torch.get_rng_state(),
            "fitted": asdict(self.fitted),
            "passes": asdict(self.meter.passes),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)

    def restore(self, path: Path) -> tuple[int, int]:
        try:
            state = torch.load(path, weights_only=True)
        except Exception as error:
            raise BadInput(f"{path}: not a readable checkpoint ({type(error).__name__}); delete it") from error
        if state["plan"] != self.plan:
            raise BadInput(f"{path}: the checkpoint of another plan, model or data; delete it or start fresh")
        self.model.load_state_dict(state["model"])
        self.generator.set_state(state["generator"])
        self.global_state, self._pending = state["global"], state["optimizers"]
        self.fitted = Fitted(**state["fitted"] | {"passes": Passes(**state["fitted"]["passes"])})
        self.meter.passes = Passes(**state["passes"])
        return state["position"]


def _step(run: _Run, phase: Phase, step: int, autocast: torch.dtype | None) -> dict[str, Any]:
    """One update; its row of history."""
    device = next(run.model.parameters()).device.type
    sums: dict[str, float] = {}
    for part in range(phase.accumulate):
        with torch.autocast(device, dtype=autocast, enabled=autocast is not None):
            value = phase.loss(run.model, phase.batches(step * phase.accumulate + part), run.generator)
        terms = {"loss": value} if isinstance(value, Tensor) else dict(value)
        loss = torch.stack([term.float() for term in terms.values()]).sum()
        (loss / phase.accumulate).backward()
        for name, term in {**terms, "loss": loss}.items():
            sums[name] = sums.get(name, 0.0) + float(term.detach()) / phase.accumulate
    where = f"at step {step + 1} of phase {phase.name!r}"
    if not math.isfinite(sums["loss"]):
        raise TrialFailed(f"the loss is {sums['loss']} {where}")
    norm = float(nn.utils.clip_grad_norm_(run.parameters, phase.clip or math.inf))
    if not math.isfinite(norm):
        raise TrialFailed(f"the gradient norm is {norm} {where}")
    factor = phase.schedule(step, phase.steps)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if phase.after:
        phase.after(run.model, step)
    run.meter.step()
    return {"step": run.steps, "phase": phase.name, **sums, "lr_factor": factor, "grad_norm": norm}


def _evaluate(run: _Run, phase: Phase, evaluate: Callable[[nn.Module], Mapping[str, Any]]) -> dict[str, Any]:
    run.model.eval()
    with torch.no_grad():
        found = evaluate(run.model).items()
    scores = {name: value if isinstance(value, list) else float(value) for name, value in found}
    run.model.train()
    return {"step": run.steps, "phase": phase.name, **scores}


def _note(history: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> str:
    latest: Mapping[str, Any] = next((r for r in reversed(history) if "lr_factor" not in r), {})
    scores = [f"{name} {value:.4g}" for name, value in latest.items() if name != "step" and isinstance(value, float)]
    return " ".join([f"loss {row['loss']:.4f}", *scores])


@contextmanager
def _as_found(model: nn.Module) -> Iterator[None]:
    """Give the model back in the mode and with the trainable parameters it came with."""
    training, trained = model.training, {name: p.requires_grad for name, p in model.named_parameters()}
    try:
        yield
    finally:
        model.train(training)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained.get(name, True))


@contextmanager
def _global_seed(generator: torch.Generator, state: Tensor | None) -> Iterator[None]:
    """Layers such as dropout draw from torch's global generator: seed it from ours, and give it back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        if state is not None:
            torch.set_rng_state(state)
        yield
