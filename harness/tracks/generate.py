"""The generate track: a zoo of trained networks in, new networks of the same architecture out.

models: ["mlp(width=16, depth=2)"]
problem:
  task: {dataset: digits, train: 1000, dev: 200}   # what the networks of the zoo were trained on
  zoo: {nets: 40, steps: 300, lr: 0.003}           # how many, and the recipe (`harness.parts.prepare.RECIPE`)
  generate: 20                                     # new networks
  budget: {steps: 2500, batch: 8}                  # of the generator's training, in networks of the zoo

Every network of the zoo starts from weights of its own and sees the data in an order of its own. The zoo is trained
when the problem is built and kept by `harness.cache`. How near the new networks lie to the zoo's is always in the log:
without it, a generator that copies looks as good as one that generates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.cache import cached
from harness.errors import BadInput, TrialFailed
from harness.parts import prepare
from harness.parts.statedict import State, check_same, loaded, state_of
from harness.parts.zoo import memorisation
from harness.problem import Problem
from harness.tasks import evaluate, make_task
from harness.tracks import training

if TYPE_CHECKING:
    from harness.check import Check
    from harness.metrics.subject import Subject
    from harness.registry import Entry
    from harness.solution import Solution

FIELDS = ("model", "task", "zoo", "generate")
ZOO: dict[str, Any] = {"nets": 40, "lr": 3e-3}
BUDGET = {"steps": 2500, "batch": 8}
MOST = 10_000


@dataclass(kw_only=True)
class GenerateProblem(Problem):
    """The tensors of trained networks (`zoo`), one of them as a `model`, and how many new ones are wanted (`count`)."""

    model: nn.Module
    zoo: list[State]
    count: int

    def load(self, state: Mapping[str, Tensor]) -> nn.Module:
        """A model with these tensors."""
        return loaded(self.model, state)


def describe(spec: Mapping[str, Any]) -> dict[str, str]:
    """Content hashes of the model and the data. Raises BadInput for a field that is unknown or wrong."""
    training.known(spec, FIELDS, required=("model", "task"))
    _recipe(spec)
    _number(spec.get("generate", 20), "generate", 1)
    training.granted(spec, BUDGET)
    return training.describe_trained(spec, {"task": spec["task"]})


def _recipe(spec: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """How many networks, and how each is trained."""
    zoo = spec.get("zoo", {})
    if not isinstance(zoo, Mapping):
        raise BadInput(f"problem: zoo={zoo!r} is not accepted; it takes a mapping with nets and the fields of a recipe")
    nets = _number(zoo.get("nets", ZOO["nets"]), "zoo: nets", 2)
    return nets, prepare.recipe({key: value for key, value in zoo.items() if key != "nets"}, "zoo", lr=ZOO["lr"])


def _number(value: Any, name: str, least: int) -> int:
    if type(value) is not int or not least <= value <= MOST:
        raise BadInput(f"problem: {name}={value!r} is not accepted; it takes a number from {least} to {MOST}")
    return value


def build(spec: Mapping[str, Any], *, seed: int) -> GenerateProblem:
    """The zoo, trained or read from the cache; data, first weights and orders come from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    task = make_task(spec["task"], generator, model=training.handle_of(spec["model"]))
    model = training.make_model(spec["model"], task, generator, pretrained=False)
    nets, recipe = _recipe(spec)
    seeds = torch.randint(2**31, (nets,), generator=generator).tolist()

    def train() -> State:
        found: State = {}
        for at, own in enumerate(seeds):
            fresh = training.make_model(spec["model"], task, torch.Generator().manual_seed(own), pretrained=False)
            state = state_of(prepare.train(fresh, task, recipe, own))
            found |= {f"{at}/{name}": tensor for name, tensor in state.items()}
        return found

    told = {key: spec.get(key) for key in ("model", "task")} | {"nets": nets, "recipe": recipe}
    tensors = cached({"track": "generate", "spec": told, "content": describe(spec), "seed": seed}, train)
    zoo = [{name: tensors[f"{at}/{name}"] for name in state_of(model)} for at in range(nets)]
    budget = training.granted(spec, BUDGET)
    model = loaded(model, zoo[0])
    budget.watch(model)
    return GenerateProblem(
        task=task, generator=generator, budget=budget, model=model, zoo=zoo, count=spec.get("generate", 20)
    )


def solve(entry: Entry, problem: GenerateProblem, params: Mapping[str, Any]) -> Solution:
    """The method's networks (`extra["nets"]`), with how near they lie to the zoo in the log: `memorisation`, the mean
    distance to the nearest network of the zoo over the mean distance of two of them, and `spread`, the mean distance of
    two new ones over the same. Raises TrialFailed for a method that gave no networks, or some of another shape."""
    solution = entry(problem, **params)
    nets = solution.extra.get("nets")
    if not nets:
        raise TrialFailed("the method gave no networks; put their tensors into extra['nets']")
    for at, net in enumerate(nets):
        try:
            check_same(problem.zoo[0], net, f"network {at}", "the zoo's")
        except BadInput as error:
            raise TrialFailed(str(error)) from error
    found = memorisation(problem.model, nets, problem.zoo)
    solution.extra["novelty"] = found["nearest"] / found["pairwise"]
    solution.log["memorisation"] = float(solution.extra["novelty"].mean())
    solution.log["spread"] = found["spread"] / found["pairwise"]
    return solution


def develop(problem: GenerateProblem, solution: Solution) -> float:
    """Mean loss of the new networks on the development split."""
    with problem.budget.free():
        losses = [evaluate(problem.task, problem.load(net), problem.task.dev)["loss"] for net in solution.extra["nets"]]
    return float(sum(loss.mean() for loss in losses) / len(losses))


def subject(problem: GenerateProblem, solution: Solution) -> Subject:
    """The first network, and in `extra` all of them, how to load one, and how new each is."""
    found = training.subject_of(problem, solution, {problem.task.name: problem.task})
    found.extra = {**solution.extra, "load": problem.load}
    return found


def size(problem: GenerateProblem, solution: Solution) -> dict[str, Any]:
    return training.trained_size(solution)


def sample() -> dict[str, Any]:
    """A problem of a second, for the contract's checks."""
    return {
        "model": "mlp(width=8, depth=1)",
        "task": {"dataset": "digits", "train": 128, "dev": 32, "test": 64},
        "zoo": {"nets": 5, "steps": 10},
        "generate": 3,
        "budget": {"steps": 10, "batch": 4},
    }


def checks() -> tuple[Check, ...]:
    return training.common_checks("generate", [sample()])
