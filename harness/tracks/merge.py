"""The merge track: a base and experts fine-tuned from it in, one model out, or one that depends on the task.

models: ["mlp(width=128, depth=2)"]     # of harness.models.small, or a checkpoint
problem:
  task: {dataset: digits, train: 1000, dev: 100}      # what all tasks have in common
  tasks: [{transform: identity}, {transform: mirror}] # one expert each; `expert: NAME` takes a checkpoint for it
  pretrain: {steps: 300, lr: 0.002}     # the base, on a mixture of all tasks; a checkpoint is its own base (steps: 0)
  finetune: {steps: 100}                # the experts, each on its task
  start: base                           # where experts start; `fresh`: each from weights of its own, there is no base
  experts: 1                            # of each task

Experts come in an order drawn from the seed. Base and experts are trained when the problem is built, by AdamW with the
fields of `harness.parts.prepare.RECIPE`, and kept by `harness.cache`; none of it is charged to the method. The budget
is for methods that look at data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from harness.cache import cached
from harness.errors import BadInput
from harness.parts import prepare
from harness.parts.statedict import State, check_same, loaded, state_of
from harness.problem import Problem
from harness.tasks import Task, describe_task, make_task, task_kind
from harness.tracks import training

if TYPE_CHECKING:
    from harness.check import Check
    from harness.metrics.subject import Subject
    from harness.registry import Entry
    from harness.solution import Solution

FIELDS = ("model", "task", "tasks", "pretrain", "finetune", "start", "experts")
STARTS = ("base", "fresh")
BASE, FRESH = STARTS
MAX_EXPERTS = 100


class Expert(NamedTuple):
    """A model to merge: the name of the task it was trained on, and its tensors."""

    task: str
    state: State


@dataclass(kw_only=True)
class MergeProblem(Problem):
    """A base and experts to merge, which a method reads once, in the order they come.

    `model` is the architecture, with the base's weights (the first expert's, where there is no base). `tasks` are what
    the merged model must do, by name; `task` is the mixture of them.
    """

    model: nn.Module
    tasks: dict[str, Task]
    base: State | None
    experts: Iterable[Expert]

    def based(self) -> State:
        """The base. Raises BadInput where experts were trained from weights of their own."""
        if self.base is None:
            raise BadInput("this method adds task vectors to a base; the problem has none (start: fresh)")
        return self.base

    def load(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        """A model with these tensors."""
        return loaded(self.model, state)


def describe(spec: Mapping[str, Any]) -> dict[str, str]:
    """Content hashes of the model, the data and the experts that are checkpoints. Raises BadInput for a field that is
    unknown or wrong, and for experts whose tensors have other shapes than the base's."""
    training.known(spec, FIELDS, required=("model", "tasks"))
    _recipes(spec)
    if spec.get("start", BASE) not in STARTS:
        raise BadInput(f"problem: start={spec['start']!r} is not accepted; it takes {' or '.join(STARTS)}")
    count = spec.get("experts", 1)
    if type(count) is not int or not 1 <= count <= MAX_EXPERTS:
        raise BadInput(f"problem: experts={count!r} is not accepted; it takes a number from 1 to {MAX_EXPERTS}")
    specs = task_specs(spec)
    hashes = training.describe_trained(spec, {"tasks.0": specs[0]})
    for at, task in enumerate(specs[1:], 1):
        hashes |= {f"tasks.{at}.{split}": digest for split, digest in describe_task(task).items()}
        if task_kind(task) != task_kind(specs[0]):
            raise BadInput(f"problem: tasks[{at}] is of kind {task_kind(task)}; the first is {task_kind(specs[0])}")
    for at, name in expert_names(spec).items():
        hashes[f"experts.{at}"] = _describe_expert(spec, name)
    return hashes


def task_specs(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The specification of each task: the common fields, and its own over them."""
    tasks, common = spec["tasks"], spec.get("task", {})
    if not isinstance(tasks, list) or not tasks:
        raise BadInput(f"problem: tasks={tasks!r} is not accepted; it takes a list of at least 1 task")
    for field, value in (("task", common), *((f"tasks[{at}]", task) for at, task in enumerate(tasks))):
        if not isinstance(value, Mapping):
            raise BadInput(f"problem: {field}={value!r} is not accepted; it takes a mapping with fields of a task")
    made = [{**common, **{key: value for key, value in task.items() if key != "expert"}} for task in tasks]
    for at, task in enumerate(made):
        if task in made[:at]:
            raise BadInput(f"problem: tasks[{at}] is the same as tasks[{made.index(task)}]; give each task once")
    return made


def expert_names(spec: Mapping[str, Any]) -> dict[int, str]:
    """The checkpoints that are given as experts, by the place of their task."""
    return {at: task["expert"] for at, task in enumerate(spec["tasks"]) if "expert" in task}


def _describe_expert(spec: Mapping[str, Any], name: Any) -> str:
    """The hash of a checkpoint that is an expert; BadInput where its tensors do not fit the model's."""
    digest = training.describe_model(name)
    base, expert = training.handle_of(spec["model"]), training.handle_of(name)
    if base is None or expert is None:
        raise BadInput(f"problem: expert={name!r} is not accepted; an expert and its model are checkpoints")
    ours, theirs = ({key: one.shape for key, one in handle.weights.stored.items()} for handle in (base, expert))
    for key in [*ours, *theirs]:
        if ours.get(key) != theirs.get(key):
            shapes = [f"{list(at[key])}" if key in at else "missing" for at in (theirs, ours)]
            raise BadInput(
                f"problem: expert {name} does not fit model {spec['model']}: tensor {key} is {shapes[0]}, in the model "
                f"{shapes[1]}; models to merge have the same shapes"
            )
    return digest


def _recipes(spec: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    from harness.models import small

    steps = 300 if small.is_small(spec["model"]) and spec.get("start", BASE) == BASE else 0
    return (
        prepare.recipe(spec.get("pretrain", {}), "pretrain", steps=steps, lr=2e-3),
        prepare.recipe(spec.get("finetune", {}), "finetune", steps=100),
    )


def build(spec: Mapping[str, Any], *, seed: int) -> MergeProblem:
    """Base and experts, trained or read from the cache; data, first weights and the experts' order come from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    handle = training.handle_of(spec["model"])
    made = [make_task(task, generator, model=handle) for task in task_specs(spec)]
    tasks = {task.name: task for task in made}
    if len(tasks) < len(made):
        raise BadInput(f"problem: two of the tasks are named alike ({', '.join(task.name for task in made)})")
    whole = prepare.mixture(tasks)
    count, fresh = spec.get("experts", 1), spec.get("start", BASE) == FRESH
    # Every draw is made whether the cache holds the result or not, so that what follows is the same.
    template = training.make_model(spec["model"], whole, generator, pretrained=not fresh)
    own = [
        training.make_model(spec["model"], whole, generator, pretrained=False) for _ in range(fresh * count * len(made))
    ]
    seeds = torch.randint(2**31, (1 + count * len(made),), generator=generator).tolist()
    pretrain, finetune = _recipes(spec)

    def train() -> State:
        base = state_of(prepare.train(template, whole, pretrain, seeds[0]))
        found = {f"base/{name}": tensor for name, tensor in base.items()}
        for at, task in enumerate(task for task in made for _ in range(count)):
            start = own[at] if fresh else loaded(template, base)
            expert = state_of(prepare.train(start, task, finetune, seeds[1 + at]))
            found |= {f"{at}/{name}": tensor for name, tensor in expert.items()}
        return found

    told = {key: spec.get(key) for key in FIELDS if key != "tasks"} | {"tasks": task_specs(spec)}
    states = _split(cached({"track": "merge", "spec": told, "content": describe(spec), "seed": seed}, train))
    experts = [Expert(task.name, states[str(at)]) for at, task in enumerate(t for t in made for _ in range(count))]
    for at, name in expert_names(spec).items():
        state = state_of(training.handle_of(name).load())
        experts[at * count : (at + 1) * count] = [Expert(made[at].name, state)] * count
    base = None if fresh else states["base"]
    ordered = [experts[at] for at in torch.randperm(len(experts), generator=generator).tolist()]
    for expert in ordered:
        check_same(base or ordered[0].state, expert.state, f"the expert of task {expert.task}")
    model = loaded(template, base or ordered[0].state)
    budget = training.granted(spec)
    budget.watch(model)
    return MergeProblem(
        task=whole, generator=generator, budget=budget, model=model, tasks=tasks, base=base, experts=ordered
    )


def _split(tensors: State) -> dict[str, State]:
    """`part/name` -> part -> name."""
    found: dict[str, State] = {}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        found.setdefault(part, {})[name] = tensor
    return found


def solve(entry: Entry, problem: MergeProblem, params: Mapping[str, Any]) -> Solution:
    return entry(problem, **params)


def develop(problem: MergeProblem, solution: Solution) -> float:
    """Mean over the tasks of the loss on their development splits."""
    losses = [training.dev_loss(problem, task, solution, name) for name, task in problem.tasks.items()]
    return sum(losses) / len(losses)


def subject(problem: MergeProblem, solution: Solution) -> Subject:
    """`extra`: the models to join by lines (`ends`: the experts, as the method aligned them), how to load one, and the
    mixture of the tasks."""
    found = training.subject_of(problem, solution, problem.tasks)
    ends = solution.extra.get("ends") or [expert.state for expert in problem.experts]
    found.extra = {"ends": ends, "load": problem.load, "mixture": problem.task}
    return found


def size(problem: MergeProblem, solution: Solution) -> dict[str, Any]:
    return training.trained_size(solution)


def sample() -> dict[str, Any]:
    """A problem of a second, for the contract's checks."""
    return {
        "model": "mlp(width=16, depth=2)",
        "task": {"dataset": "digits", "train": 128, "dev": 32, "test": 64},
        "tasks": [{"transform": "identity"}, {"transform": "mirror"}, {"transform": "invert"}],
        "pretrain": {"steps": 12},
        "finetune": {"steps": 8},
        "budget": {"steps": 12, "batch": 16},
    }


def checks() -> tuple[Check, ...]:
    return (*training.common_checks("merge", [sample()]), reads_the_experts_once)


def reads_the_experts_once(entry: Entry) -> str:
    """Experts that can be read only once, one after the other, give the same result: a sequential method must not need
    them all at a time."""
    from harness.check import Broken
    from harness.tracks.checks import Case

    case = Case("merge", sample())
    listed, streamed = case.problem(), case.problem()
    before = case.outputs(listed, case.solve(entry, listed))
    experts = list(streamed.experts)
    streamed.experts = iter(experts)
    solution = case.solve(entry, streamed)
    streamed.experts = experts
    after = case.outputs(streamed, solution)
    if any(not torch.equal(before[name], after[name]) for name in before):
        raise Broken("experts read from an iterator give another result; read problem.experts once")
    return f"{len(experts)} experts"
