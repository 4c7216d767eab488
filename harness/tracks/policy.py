"""The policy track: a small environment and an untrained policy in, a trained one out.

    problem:
      env: grid(size=5)          # or reasoning(horizon=24); see harness.parts.environments
      updates: 150               # rollouts
      episodes: 16               # episodes of a rollout
      test: 200                  # episodes that metrics read
      tuning: 4

Granted are `updates` x `episodes` x the environment's horizon steps in it, counted. Test episodes start from the same
states, and draw from the same numbers, for every method and seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from harness.errors import BadInput
from harness.parts import environments, rl
from harness.parts.environments import Environment, Interactions
from harness.solution import Solution
from harness.tracks import training
from harness.train.budget import Meter

if TYPE_CHECKING:
    from harness.check import Check
    from harness.metrics.subject import Subject
    from harness.registry import Entry

FIELDS: dict[str, Any] = {"env": None, "updates": 150, "episodes": 16, "dev": 100, "test": 200, "tuning": 0}
DEV_SEED, TEST_SEED = 1, 2


@dataclass(kw_only=True)
class PolicyProblem:
    """A policy to train, and rollouts to train it by. `curve` keeps the mean return of every rollout."""

    model: rl.Policy
    environment: Environment
    generator: torch.Generator
    interactions: Interactions
    updates: int
    episodes: int
    spec: dict[str, Any]
    meter: Meter = field(default_factory=Meter)
    curve: list[float] = field(default_factory=list)

    def seed(self) -> int:
        """A number drawn from the generator, for what takes a seed."""
        return int(torch.randint(2**31, (), generator=self.generator))

    def rollout(self) -> rl.Rollout:
        """Episodes of the policy as it is now, counted."""
        found = rl.rollout(self.model, self.environment, self.episodes, self.generator, self.interactions)
        self.curve.append(float(found.returns.mean()))
        return found


def describe(spec: Mapping[str, Any]) -> dict[str, str]:
    """Nothing is read. Raises BadInput for a field that is unknown or wrong."""
    _checked(spec)
    return {}


def _checked(spec: Mapping[str, Any]) -> dict[str, Any]:
    from harness.tasks.task import known_fields

    fields = known_fields(dict(spec), FIELDS, "problem")
    training.check_common({"tuning": fields["tuning"]})
    for name in ("updates", "episodes", "dev", "test"):
        if type(fields[name]) is not int or fields[name] < 1:
            raise BadInput(f"problem: {name}={fields[name]!r} is not accepted; it takes a number of at least 1")
    if not isinstance(fields["env"], str):
        raise BadInput(f"problem: env={fields['env']!r} is not accepted; it takes an environment, as grid(size=5)")
    environments.make_environment(fields["env"])
    return fields


def build(spec: Mapping[str, Any], *, seed: int) -> PolicyProblem:
    """The environment and a policy for it, its first weights drawn from `seed`: a recurrent one, or, for an
    environment of few states and one token a step, a table."""
    from harness.models.small import seeded

    fields = _checked(spec)
    environment = environments.make_environment(fields["env"])
    generator = torch.Generator().manual_seed(seed)
    made = rl.TabularPolicy if isinstance(environment, environments.Reasoning) else rl.TokenPolicy
    model = cast(rl.Policy, seeded(lambda: made(environment.observations, environment.outputs), generator))
    granted = fields["updates"] * fields["episodes"] * environment.horizon
    return PolicyProblem(
        model=model, environment=environment, generator=generator, interactions=Interactions(granted),
        updates=fields["updates"], episodes=fields["episodes"], spec=fields,
    )  # fmt: skip


def solve(entry: Entry, problem: PolicyProblem, params: Mapping[str, Any]) -> Solution:
    """A method trains the problem's model; it returns a Solution, which gets the curve of returns."""
    solution = entry(problem, **params)
    solution.log = {**solution.log, "returns": problem.curve, "interactions": problem.interactions.taken}
    return solution


def evaluated(problem: PolicyProblem, solution: Solution, episodes: int, seed: int) -> rl.Rollout:
    """Episodes of the trained policy; not counted."""
    environment = environments.make_environment(problem.spec["env"])
    return rl.rollout(
        cast(rl.Policy, solution.model_for().eval()), environment, episodes, torch.Generator().manual_seed(seed)
    )


def develop(problem: PolicyProblem, solution: Solution) -> float:
    """Minus the mean return of development episodes."""
    return -float(evaluated(problem, solution, problem.spec["dev"], DEV_SEED).returns.mean())


def subject(problem: PolicyProblem, solution: Solution) -> Subject:
    from harness.metrics.subject import Subject

    found = evaluated(problem, solution, problem.spec["test"], TEST_SEED)
    shown = problem.spec["env"]
    return Subject(
        solution.model_for(),
        "policy",
        extra={
            "rollout": found,
            "curve": list(problem.curve),
            "signature": f"env:{shown}|episodes:{problem.spec['test']}",
            "training": f"env:{shown}|episodes:{problem.episodes}",
            "outputs": lambda: {"returns": evaluated(problem, solution, 20, TEST_SEED).returns},
        },
    )


def size(problem: PolicyProblem, solution: Solution) -> dict[str, Any]:
    return training.trained_size(solution)


def checks() -> tuple[Check, ...]:
    common = {"updates": 2, "episodes": 4, "dev": 4, "test": 20}
    specs = [{"env": "grid(size=3, horizon=6)", **common}, {"env": "reasoning(horizon=8)", **common}]
    return training.common_checks("policy", specs)
