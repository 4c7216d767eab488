"""The generate track: flows by their identities, zoos by theirs, and what counts as a copy."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

from harness import registry
from harness.errors import BadInput, TrialFailed
from harness.metrics.generate import generated_accuracy, novelty
from harness.parts import permutation
from harness.parts.flow import VelocityField, integrate, matching_loss
from harness.parts.statedict import Layout, loaded, mean
from harness.parts.zoo import Coordinates, canonical, memorisation
from harness.tasks import evaluate
from harness.tracks import generate

SPEC = {
    "model": "mlp(width=16, depth=1)",
    "task": {"dataset": "digits", "train": 400, "dev": 50, "test": 150},
    "zoo": {"nets": 6, "steps": 120, "lr": 0.01},
    "generate": 4,
    "budget": {"steps": 60, "batch": 4},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@functools.cache
def built(seed: int = 0):
    return generate.build(copy.deepcopy(SPEC), seed=seed)


def solve(name: str, **params):
    problem = generate.build(copy.deepcopy(SPEC), seed=0)
    entry = next(one for one in registry.entries("method", "generate") if one.name == name)
    defaults = {key: parameter.default for key, parameter in entry.params.items()}
    return problem, generate.solve(entry, problem, {**defaults, **params})


def test_an_untrained_flow_stays_where_it_is():
    flow, x0 = VelocityField(5, width=16).eval(), torch.randn(3, 5, generator=generator())
    for rule in ("euler", "rk4"):
        assert torch.equal(integrate(flow, x0, 10, rule), x0)


def test_the_exact_field_of_one_pair_leads_from_one_to_the_other():
    x0, x1 = torch.randn(2, 1, 4, generator=generator())
    for rule in ("euler", "rk4"):
        torch.testing.assert_close(integrate(lambda x, t: x1 - x0, x0, 7, rule), x1)


def test_rk4_follows_a_curved_field_that_euler_does_not():
    x0 = torch.ones(1, 1)
    field = lambda x, t: x + t  # x(1) = 3 e - 2 with x(0) = 1 (x + t has x = 2 e^t - t - 1)  # noqa: E731
    exact = 2 * torch.e - 2
    assert float(integrate(field, x0, 20, "rk4")) == pytest.approx(exact, rel=1e-6)
    assert abs(float(integrate(field, x0, 20, "euler")) - exact) > 0.05


def test_the_loss_is_zero_for_the_exact_field_of_a_point_source():
    x1 = torch.randn(8, 3, generator=generator())
    field = lambda x, t: x / t  # from 0 along straight lines, x_t = t x1  # noqa: E731
    assert float(matching_loss(field, x1, generator(), scale=0.0, noise=0.0)) == pytest.approx(0, abs=1e-6)


def test_all_coordinates_represent_the_zoo():
    vectors = torch.randn(6, 40, generator=generator())
    space = Coordinates.of(vectors, 99)
    assert space.basis.shape == (40, 5)
    torch.testing.assert_close(space.decode(space.encode(vectors)), vectors, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(space.basis.T @ space.basis, torch.eye(5), atol=1e-5, rtol=1e-5)


def test_one_order_of_units_changes_no_function_and_makes_the_mean_work():
    problem = built()
    states = canonical(problem.model, problem.zoo, problem.zoo[0], generator())
    inputs = problem.task.test.inputs
    with torch.no_grad(), problem.budget.free():
        for state, before in zip(states, problem.zoo, strict=True):
            one, other = (loaded(problem.model, net)(inputs) for net in (state, before))
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    right = []
    for nets in (states, problem.zoo):
        with problem.budget.free():
            found = evaluate(problem.task, loaded(problem.model, mean(nets)), problem.task.test)
        right.append(found["accuracy"].mean())
    assert right[0] > right[1] + 0.1


def test_a_copy_is_a_copy_whatever_the_order_of_its_units():
    problem = built()
    spec = permutation.spec_of(problem.model)
    hidden = [
        permutation.apply(spec, permutation.random_permutations(spec, generator()), net) for net in problem.zoo[:3]
    ]
    found = memorisation(problem.model, hidden, problem.zoo)
    assert found["nearest"].max() == 0
    assert found["pairwise"] > 0
    layout = Layout.of(problem.zoo[0])
    raw = (layout.flatten(problem.zoo[0]) - layout.flatten(problem.zoo[1])).norm()
    assert found["pairwise"] < raw * 1.2


def test_memorisation_is_always_told():
    problem, solution = solve("zoo")
    subject = generate.subject(problem, solution)
    assert novelty(subject).value == 0
    assert solution.log["memorisation"] == 0
    assert generated_accuracy(subject).value > 0.6
    _, jittered = solve("noise", scale=0.3)
    assert jittered.log["memorisation"] > 0.05
    _, shuffled = solve("shuffled_weights")
    assert generated_accuracy(generate.subject(problem, shuffled)).value < 0.4


def test_what_is_wrong_with_the_networks_fails_the_trial():
    from harness import Solution

    problem = built()
    with pytest.raises(TrialFailed, match="gave no networks"):
        generate.solve(lambda problem: Solution(model=problem.model), problem, {})
    short = {name: tensor[:1] for name, tensor in problem.zoo[0].items()}
    with pytest.raises(TrialFailed, match=r"network 0 does not fit the zoo's: tensor \S+ has shape"):
        generate.solve(lambda problem: Solution(model=problem.model, extra={"nets": [short]}), problem, {})


def test_a_killed_flow_goes_on_to_the_same_networks(tmp_path, monkeypatch):
    from harness.train import loop
    from methods.generation import deepweightflow as module

    problem, whole = solve("deepweightflow", steps=5)
    entry = next(one for one in registry.entries("method", "generate") if one.name == "deepweightflow")
    params = {key: parameter.default for key, parameter in entry.params.items()} | {"steps": 5}

    def stopped(*args, **options):
        loop.run_phases(*args, **{**options, "stop_after": 20})
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_phases", stopped)
    part = generate.build(copy.deepcopy(SPEC), seed=0)
    part.folder = tmp_path
    with pytest.raises(KeyboardInterrupt):
        generate.solve(entry, part, params)
    monkeypatch.setattr(module, "run_phases", loop.run_phases)
    again = generate.build(copy.deepcopy(SPEC), seed=0)
    again.folder = tmp_path
    resumed = generate.solve(entry, again, params)
    for a, b in zip(whole.extra["nets"], resumed.extra["nets"], strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert again.budget.passes.steps == problem.budget.passes.steps == 60


REFUSED = {
    "zoo: nets=1 is not accepted; it takes a number from 2": {"zoo": {"nets": 1}},
    "zoo: unknown field net": {"zoo": {"net": 3}},
    "zoo=3 is not accepted": {"zoo": 3},
    "generate=0 is not accepted": {"generate": 0},
    "field task is missing": {"task": None},
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_fields_are_refused_in_one_line(message):
    spec = {key: value for key, value in {**SPEC, **REFUSED[message]}.items() if value is not None}
    with pytest.raises(BadInput, match=message) as caught:
        generate.describe(spec)
    assert "\n" not in str(caught.value)
