"""What every method of a track that trains must do, checked on problems of a second each.

A track gives specifications of small problems; a check builds one, solves it and looks.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.check import Broken, Check
from harness.engine.tracks import track_module
from harness.errors import BadInput
from harness.randomness import random_state, restored_random_state, seed_everything
from harness.registry import Entry
from harness.solution import Solution

SEED = 11


Specs = list[dict[str, Any]] | Callable[[Entry], list[dict[str, Any]]]
"""Specifications of small problems; of those that a method takes, where not every method takes all."""


def checks_on(track: str, specs: Specs) -> tuple[Check, ...]:
    """The checks of a track's methods on the problems that `specs` describe."""
    made = [_named(check, track, specs) for check in CHECKS]
    return (every_parameter_has_a_default, *made)


def every_parameter_has_a_default(entry: Entry) -> str:
    """The defaults are the paper's; without one the method cannot be run by its name alone."""
    if missing := [name for name, parameter in entry.params.items() if parameter.required]:
        raise Broken(f"parameter {missing[0]} has no default; give it the paper's")
    return f"{len(entry.params)} parameters"


class Case:
    """One small problem of a track, made as often as it is asked for."""

    def __init__(self, track: str, spec: dict[str, Any]):
        self.track, self.spec = track_module(track), spec

    def problem(self) -> Any:
        return self.track.build(copy.deepcopy(self.spec), seed=SEED)

    def solve(self, entry: Entry, problem: Any = None) -> Any:
        problem = self.problem() if problem is None else problem
        params = {name: parameter.default for name, parameter in entry.params.items()}
        return self.track.solve(entry, problem, params)

    def outputs(self, problem: Any, solution: Any) -> dict[str, Tensor]:
        """What the solution computes on the test data, by task."""
        found = self.track.subject(problem, solution)
        return answers(found)


def answers(subject: Any) -> dict[str, Tensor]:
    """The outputs of a subject's model on the first test items of its tasks; else what its track says they are."""
    from harness.tasks import outputs

    if compute := subject.extra.get("outputs"):
        return compute()
    if not subject.tasks:
        return {name: torch.as_tensor(value) for name, value in subject.extra.items() if isinstance(value, np.ndarray)}
    found = {}
    for name, task in subject.tasks.items():
        model = subject.model if subject.model_for is None else subject.model_for(name)
        found[name] = outputs(task, model, task.test.part(range(min(32, len(task.test)))))
    return found


def gives_a_working_solution(entry: Entry, case: Case) -> str:
    """The solution can be evaluated, and what it computes is finite."""
    problem = case.problem()
    solution = case.solve(entry, problem)
    if not isinstance(solution, Solution):
        raise Broken(f"it returned a {type(solution).__name__}; return a Solution")
    found = case.outputs(problem, solution)
    for name, values in found.items():
        if not values.isfinite().all():
            raise Broken(f"the outputs for {name} are not finite")
    size = case.track.size(problem, solution)
    return f"{len(found)} outputs, {size.get('model_bytes', 0)} bytes stored"


def same_seed_gives_the_same_result(entry: Entry, case: Case) -> str:
    """Two runs under one seed agree bit for bit, whatever state the global generators are in."""
    with restored_random_state():
        results = []
        for state in (1, 2):
            seed_everything(state)
            problem = case.problem()
            results.append(case.outputs(problem, case.solve(entry, problem)))
    once, again = results
    if once.keys() != again.keys() or any(not torch.equal(once[name], again[name]) for name in once):
        raise Broken("two runs with one seed differ; draw from the problem's generator only")
    return "two runs agree bit for bit"


def global_random_state_is_left_alone(entry: Entry, case: Case) -> str:
    """torch, numpy and random hold the state they had."""
    problem = case.problem()
    with restored_random_state():
        before = random_state()
        case.solve(entry, problem)
        after = random_state()
    if touched := [name for name in before if before[name] != after[name]]:
        raise Broken(f"it changed the global random state of {' and '.join(touched)}")
    return "torch, numpy and random untouched"


def inputs_are_not_modified(entry: Entry, case: Case) -> str:
    """The data, and the models that the problem only lends (a teacher, a base, experts), hold what they held."""
    problem = case.problem()
    before = {name: tensor.clone() for name, tensor in lent(problem).items()}
    case.solve(entry, problem)
    after = lent(problem)
    if changed := [name for name in before if name not in after or not torch.equal(before[name], after[name])]:
        raise Broken(f"it modified its input: {', '.join(changed[:5])}")
    return f"{len(before)} tensors unchanged"


def stays_within_its_budget(entry: Entry, case: Case) -> str:
    """No more updates and passes than the problem grants (more would have failed the trial), and no fewer by half."""
    problem = case.problem()
    case.solve(entry, problem)
    budget = getattr(problem, "budget", None)
    if budget is None:
        return "no budget"
    budget.check()
    spent, granted = budget.passes, budget.granted
    return f"{spent.steps} of {granted.steps} updates, {spent.forward} of {granted.forward} forward passes"


def saving_and_loading_changes_nothing(entry: Entry, case: Case) -> str:
    """The tensors of each model come back from a file, and put into the model give the same outputs."""
    from safetensors.torch import load_file, save_file

    problem = case.problem()
    subject = case.track.subject(problem, case.solve(entry, problem))
    if not isinstance(subject.model, nn.Module):
        return "no model to save"
    before = answers(subject)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        state = {name: tensor.detach().clone().contiguous() for name, tensor in subject.model.state_dict().items()}
        save_file(state, path)
        read = load_file(path)
        with torch.no_grad():
            for tensor in subject.model.state_dict().values():
                tensor.zero_()
        subject.model.load_state_dict(read)
    name = next(iter(before))
    if not torch.equal(before[name], answers(subject)[name]):
        raise Broken("the model read back from a file computes something else")
    return f"{len(state)} tensors"


CHECKS: tuple[Callable[[Entry, Case], str], ...] = (
    gives_a_working_solution,
    same_seed_gives_the_same_result,
    global_random_state_is_left_alone,
    inputs_are_not_modified,
    stays_within_its_budget,
    saving_and_loading_changes_nothing,
)


def lent(problem: Any) -> dict[str, Tensor]:
    """Tensors of a problem that are not the method's to change: its data, and every model but `model` and `student`."""
    found: dict[str, Tensor] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, np.ndarray):
            found[name] = (
                torch.from_numpy(np.ascontiguousarray(value)) if value.dtype.kind in "fiub" else torch.empty(0)
            )
        elif isinstance(value, nn.Module):
            for key, tensor in value.state_dict().items():
                found[f"{name}.{key}"] = tensor
        elif isinstance(value, dict):
            for key, one in value.items():
                add(f"{name}.{key}", one)
        elif isinstance(value, list | tuple):
            for at, one in enumerate(value):
                add(f"{name}.{at}", one)
        elif hasattr(value, "train") and hasattr(value, "test"):  # a task
            for split in ("train", "dev", "test"):
                add(f"{name}.{split}", [getattr(value, split).inputs, getattr(value, split).labels])

    for name, value in vars(problem).items():
        if name not in ("model", "student", "supernet"):
            add(name, value)
    return found


def _named(check: Callable[[Entry, Case], str], track: str, specs: Specs) -> Check:
    """A check over all of a track's small problems, under the check's own name."""

    def run(entry: Entry) -> str:
        seen, refused = [], []
        for spec in specs(entry) if callable(specs) else specs:
            try:
                seen.append(check(entry, Case(track, spec)))
            except BadInput as error:  # a method may be for some of a track's problems only
                refused.append(error)
        if not seen:
            raise refused[0]
        return "; ".join(seen)

    run.__name__, run.__doc__ = check.__name__, check.__doc__
    return run
