"""Tuning: the same tries for all, the best on the development split, failures and costs told."""

from __future__ import annotations

import pytest

from harness import registry
from harness.engine import trial as trials
from harness.engine.plan import plan_suite
from harness.engine.suite import load_suite
from harness.engine.tuning import candidates, space

SUITE = """\
suite: tuned
title: Tuned
track: train
models: ["mlp(width=16, depth=1)"]
problem:
  task: {dataset: digits, train: 128, dev: 64, test: 64}
  budget: {steps: 20, batch: 16}
  tuning: 4
methods: [METHOD]
metrics: [accuracy]
"""


@pytest.fixture
def planned(tmp_path):
    def plan(method: str, **changes: str):
        text = SUITE.replace("METHOD", f'"{method}"')
        for old, new in changes.items():
            text = text.replace(f"{old}:", f"{old}: {new} #")
        path = tmp_path / "tuned.yaml"
        path.write_text(text)
        return plan_suite(load_suite(path))[0]

    return plan


def test_the_first_try_is_the_default_and_the_rest_are_other_points_of_the_grid(planned):
    trial = planned("adamw")
    entry = registry.get("adamw")
    found = list(candidates(entry, trial))
    assert found[0] == trial.point.params
    assert len(found) == 5 * 4
    assert len({tuple(sorted(one.items())) for one in found}) == len(found)
    assert {one["lr"] for one in found} == {1e-4, 3e-4, 1e-3, 3e-3, 1e-2}
    assert found == list(candidates(entry, trial))


def test_what_the_suite_sets_is_not_tuned(planned):
    assert list(space(registry.get("adamw"), {"lr": 1.0})) == ["weight_decay"]
    trial = planned("adamw(lr=0.001, weight_decay=0)")
    assert list(candidates(registry.get("adamw"), trial)) == [trial.point.params]


def test_the_best_try_on_dev_is_kept_and_every_try_recorded(planned):
    outcome = trials.run_trial(planned("adamw"))
    tried = outcome.record.log["tuning"]
    assert outcome.record.status == "ok"
    assert len(tried) == 4
    assert tried[0]["params"] == {}
    curve = outcome.record.log["curve"]
    assert min(one["score"] for one in tried) == pytest.approx([r["dev_loss"] for r in curve if "dev_loss" in r][-1])
    assert outcome.record.params["lr"] == 1e-3  # what identifies the trial is what was asked for


def test_all_tries_failing_is_a_failed_trial_with_the_first_reason(planned, monkeypatch):
    from harness.errors import TrialFailed
    from harness.tracks import train

    def failing(entry, problem, params):
        raise TrialFailed("the loss is nan")

    monkeypatch.setattr(train, "solve", failing)
    outcome = trials.run_trial(planned("adamw"))
    assert outcome.record.status == "failed"
    assert outcome.record.reason == "all 4 tries of tuning failed; the first: the loss is nan"


def test_state_of_a_trial_is_kept_below_its_folder_and_gone_when_it_is_done(planned, tmp_path, monkeypatch):
    monkeypatch.setenv(trials.STATE, str(tmp_path / "state"))
    monkeypatch.setattr("harness.train.fit.KEEP_SECONDS", 0.0)
    seen = []
    from harness.train import loop

    original = loop._Run.save
    monkeypatch.setattr(loop._Run, "save", lambda run, path, at: (seen.append(path), original(run, path, at)))
    trial = planned("adamw")
    assert trials.run_trial(trial).record.status == "ok"
    assert {path.parent.name for path in seen} == {"try-0", "try-1", "try-2", "try-3"}
    assert all(path.is_relative_to(tmp_path / "state" / trial.hash[:24]) for path in seen)
    assert not (tmp_path / "state" / trial.hash[:24]).exists()


def test_a_space_for_what_is_no_parameter_is_an_error():
    with pytest.raises(TypeError, match="declares a space for 'rank', which is no parameter of it"):

        @registry.method(track="train", tune={"rank": (1, 2)})
        def wrong(problem, *, lr: float = 1.0):
            """Nothing."""
