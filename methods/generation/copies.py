"""What generated networks are measured from: networks of the zoo as they are, jittered, joined, and shuffled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness import Claim, GenerateProblem, Solution, Weight, method
from harness.parts.batchnorm import has_batchnorm, recalibrate
from harness.parts.statedict import State, floats, mean, with_floats
from harness.parts.statedict import interpolate as joined
from harness.parts.zoo import canonical


def solution_of(problem: GenerateProblem, nets: Sequence[State], stored: dict[str, Tensor], **log: object) -> Solution:
    """Networks as a solution; batch norm's statistics are computed anew on the training data, once over it."""
    if has_batchnorm(problem.model):
        inputs = problem.task.train.inputs.split(256)
        nets = [recalibrate(problem.load(net), inputs).state_dict() for net in nets]
    return Solution(model=problem.load(nets[0]), stored=stored, extra={"nets": list(nets)}, log=dict(log))


def whole_zoo(problem: GenerateProblem) -> dict[str, Tensor]:
    return {f"{at}.{name}": tensor for at, state in enumerate(problem.zoo) for name, tensor in state.items()}


def draw(problem: GenerateProblem) -> list[State]:
    """Networks of the zoo drawn at random, with repetition."""
    places = torch.randint(len(problem.zoo), (problem.count,), generator=problem.generator)
    return [problem.zoo[at] for at in places.tolist()]


@method(track="generate", role="reference")
def zoo(problem: GenerateProblem) -> Solution:
    """Networks of the zoo as they are: what generated ones are to equal, and copies of the data."""
    return solution_of(problem, draw(problem), whole_zoo(problem))


@method(track="generate")
def noise(problem: GenerateProblem, *, scale: Weight = 0.1) -> Solution:
    """Networks of the zoo with Gaussian noise added, `scale` times the root mean square of each tensor."""
    nets = []
    for state in draw(problem):
        jittered = {}
        for name in floats(state):
            deviation = scale * state[name].square().mean().sqrt()
            jittered[name] = state[name] + deviation * torch.randn(state[name].shape, generator=problem.generator)
        nets.append(with_floats(state, jittered))
    return solution_of(problem, nets, whole_zoo(problem))


@method(track="generate")
def interpolate(problem: GenerateProblem, *, align: bool = True) -> Solution:
    """Points between two networks of the zoo, drawn at random; with `align`, their units are matched first."""
    states = canonical(problem.model, problem.zoo, problem.zoo[0], problem.generator) if align else problem.zoo
    nets = []
    for _ in range(problem.count):
        a, b = torch.randperm(len(states), generator=problem.generator)[:2].tolist()
        nets.append(joined(states[a], states[b], float(torch.rand((), generator=problem.generator))))
    return solution_of(problem, nets, whole_zoo(problem))


@method(
    track="generate",
    paper="gupta2026deepweightflow",
    claims=[
        Claim(
            metric="generated_accuracy",
            than="zoo_mean(align=False)",
            suite="generate-weights",
            params={"align": True},
            paper="matching removes the symmetry that makes raw zoos unlearnable (implied; no figure)",
        )
    ],
)
def zoo_mean(problem: GenerateProblem, *, align: bool = True) -> Solution:
    """One network, the mean of the zoo; with `align`, of its networks with their units matched to the first's."""
    states = canonical(problem.model, problem.zoo, problem.zoo[0], problem.generator) if align else problem.zoo
    net = mean(states)
    return solution_of(problem, [net], net)


@method(track="generate", role="control")
def shuffled_weights(problem: GenerateProblem) -> Solution:
    """Networks of the zoo with each tensor's numbers in a random order: the null control of generation."""
    nets = []
    for state in draw(problem):
        orders = {name: torch.randperm(state[name].numel(), generator=problem.generator) for name in floats(state)}
        nets.append(with_floats(state, {n: state[n].flatten()[order].view_as(state[n]) for n, order in orders.items()}))
    return solution_of(problem, nets, whole_zoo(problem))
