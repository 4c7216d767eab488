"""`fit` on a problem: budgets that bind, curves, resumption inside a trial, and the train track around it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from harness.errors import BadInput, TrialFailed
from harness.tasks import evaluate
from harness.tracks import train as track
from harness.tracks import training
from harness.train import optimizers
from harness.train.budget import Budget, Meter, Passes, counting
from harness.train.fit import fit

SPEC = {
    "model": "mlp(width=16, depth=1)",
    "task": {"dataset": "digits", "train": 128, "dev": 32, "test": 64},
    "budget": {"steps": 30, "batch": 16},
}


def problem(seed: int = 0, **changes):
    return track.build({**SPEC, **changes}, seed=seed)


def test_fit_spends_the_budget_exactly_and_learns():
    one = problem(budget={"steps": 60, "batch": 16})
    before = evaluate(one.task, one.model, one.task.dev)["loss"].mean()
    one.budget.passes = Passes()
    solution = fit(one, optimizer=optimizers.adamw(1e-2))
    assert one.budget.passes == one.budget.granted == Passes(60, 960, 960)
    assert track.develop(one, solution) < before
    assert solution.log["passes"] == {"steps": 60, "forward": 960, "backward": 960}
    assert [row["step"] for row in solution.log["curve"] if "dev_loss" in row][-1] == 60


def test_one_pass_too_many_fails_with_the_count():
    one = problem()
    with pytest.raises(TrialFailed, match="the method took 496 forward passes of samples; the problem grants 480"):
        fit(one, optimizer=optimizers.sgd(0.1), steps=40)
    with pytest.raises(TrialFailed, match="the method took 31 updates; the problem grants 30"):
        fit(problem(), optimizer=optimizers.sgd(0.1), steps=40, batch=8)


def test_steps_that_cost_more_are_fewer():
    one = problem()

    def twice(model, batch, generator):
        return one.task.loss(model, batch) + one.task.loss(model, batch)

    fit(one, optimizer=optimizers.sgd(0.1), loss=twice, passes=2)
    assert one.budget.passes == Passes(15, 480, 480)


def test_a_copy_of_a_model_is_counted_too_and_a_part_of_one_is_not():
    meter = Meter()
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    meter.watch(model)
    meter.watch(model[0])
    copy.deepcopy(model)(torch.zeros(5, 3))
    with torch.no_grad():
        model(torch.zeros(2, 3))
    with meter.free():
        model(torch.zeros(100, 3))
    assert meter.passes == Passes(0, 7, 5)


def test_an_error_inside_a_model_does_not_stop_the_counting():
    meter, model = Meter(), nn.Linear(3, 2)
    with counting([model], meter):
        with pytest.raises(RuntimeError):
            model(torch.zeros(1, 4))
        before = meter.passes.forward
        model(torch.zeros(4, 3))
    assert meter.passes.forward == before + 4
    assert not model._forward_hooks


def test_what_is_left_of_a_budget_pays_for_whole_steps():
    budget = Budget(granted=Passes(10, 100, 100), batch=10)
    assert (budget.steps(), budget.steps(3), budget.steps(batch=20)) == (10, 3, 5)
    budget.passes = Passes(8, 10, 10)
    assert budget.steps() == 2


def test_a_killed_training_of_a_trial_ends_in_the_same_weights(tmp_path, monkeypatch):
    """The second of two trainings is stopped in its middle; run again, the first is not repeated."""

    def method(one):
        first = fit(one, optimizer=optimizers.adamw(1e-2), steps=10)
        return fit(one, optimizer=optimizers.sgd(0.1), model=first.model, steps=20)

    whole = problem()
    expected = method(whole).model.state_dict()

    class Killed(Exception):
        pass

    from harness.train import loop

    monkeypatch.setattr("harness.train.fit.KEEP_SECONDS", 0.0)
    original, steps = loop._step, []

    def dying(run, *arguments):
        steps.append(1)
        if len(steps) == 17:
            raise Killed
        return original(run, *arguments)

    monkeypatch.setattr(loop, "_step", dying)
    one = problem()
    one.folder = tmp_path
    with pytest.raises(Killed):
        method(one)
    again = problem()
    again.folder = tmp_path
    steps[:] = [1] * 100
    continued = method(again).model.state_dict()
    assert len(steps) == 100 + 14
    assert all(torch.equal(expected[name], continued[name]) for name in expected)
    assert again.budget.passes == whole.budget.passes


def test_a_loss_that_is_not_a_number_stops_the_training_and_names_the_step():
    def broken(model, batch, generator):
        return problem_.task.loss(model, batch) * (float("nan") if len(calls) == 4 else 1) + 0 * len(calls)

    problem_, calls = problem(), []
    with pytest.raises(TrialFailed, match="the loss is nan at step 5 of phase 'train'"):
        fit(problem_, optimizer=optimizers.sgd(0.1), loss=lambda *a: (broken(*a), calls.append(1))[0])


def test_the_seed_draws_the_weights_and_the_data():
    one, same, other = problem(), problem(), problem(1)
    for left, right, equal in ((one, same, True), (one, other, False)):
        pairs = zip(left.model.parameters(), right.model.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == equal
    assert not torch.equal(one.fresh().head.weight, one.model.head.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": {"steps": 0}}, "budget: steps=0 is not accepted; it takes a number of at least 1"),
        ({"budget": {"step": 5}}, "budget: unknown field step; did you mean steps?"),
        ({"budget": 5}, "budget: 5 is not accepted; it takes a mapping with steps, batch"),
        ({"tuning": -1}, "problem: tuning=-1 is not accepted; it takes a number of tries from 0 to 1000"),
        ({"model": "mpl(width=3)"}, "unknown model 'mpl(width=3)'"),
        ({"model": "mlp(widht=3)"}, "mlp has no parameter 'widht'; did you mean width?"),
        ({"model": "mlp(width=0)"}, "mlp: width=0 is not accepted"),
        ({"model": "mlp(width=[1, 2])"}, "model 'mlp(width=[1, 2])' is a grid of 2; name one model"),
        ({"model": "llama"}, "model llama is for tasks of kind causal-lm; this one is vision"),
        ({"model": "minilm"}, "model minilm is of kind encoder; the task is of kind vision"),
        ({"tusk": {}}, "problem: unknown field tusk; did you mean task"),
    ],
)
def test_a_wrong_problem_is_refused_in_one_line(change, message):
    with pytest.raises(BadInput) as caught:
        track.describe({**SPEC, **change})
    assert str(caught.value).startswith(message)


def test_a_checkpoint_is_trained_from_its_config_alone():
    one = track.build({**SPEC, "model": "digits-vit", "budget": {"steps": 2, "batch": 8}}, seed=0)
    from harness.models import open_model

    stored = open_model("digits-vit").load().state_dict()
    fresh = one.model.state_dict()
    assert fresh.keys() == stored.keys()
    assert not torch.equal(fresh["embed.weight"], stored["embed.weight"])
    fit(one, optimizer=optimizers.adamw(1e-3))


def test_the_size_is_that_of_the_stored_tensors_each_once():
    one = problem()
    solution = fit(one, optimizer=optimizers.sgd(0.1), steps=1)
    numbers = sum(p.numel() for p in one.model.parameters())
    assert training.trained_size(solution) == {"model_bytes": 4 * numbers, "numbers": numbers}
    shared = torch.zeros(3, 4)
    solution.stored = {"a": shared, "b": shared, "c": torch.zeros(2)}
    assert training.trained_size(solution) == {"model_bytes": 56, "numbers": 14}
