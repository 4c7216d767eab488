"""The adapt track: what its methods store is what they changed, forgetting is read by item, bad input is one line."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from harness import registry
from harness.errors import BadInput, TrialFailed
from harness.metrics.adapt import forgetting, matched
from harness.metrics.subject import Subject
from harness.parts.adapters import LoRA, attach, load_adapter_state, merge
from harness.parts.coupled import add_columns
from harness.parts.masks import apply_update
from harness.tasks import evaluate
from harness.tracks import adapt


def built(**changes):
    return adapt.build({**adapt.sample(), **changes}, seed=1)


def solved(name, problem, **params):
    entry = registry.get(name)
    return adapt.solve(entry, problem, {key: p.default for key, p in entry.params.items()} | params)


def same(a, b, **tolerance):
    for name, tensor in a.state_dict().items():
        torch.testing.assert_close(tensor, b.state_dict()[name], **tolerance)


def test_a_stored_adapter_makes_the_base_the_adapted_model():
    problem = built()
    base = copy.deepcopy(problem.model)
    solution = solved("lora", problem)
    rank = solution.log["trainable"]["choice"]
    adapters = attach(base, problem.layers, lambda name, shape: LoRA(shape, rank, 2.0, problem.generator))
    load_adapter_state(adapters, solution.stored)
    merge(base, adapters)
    same(base, solution.model)


@pytest.mark.parametrize("name", ["lift", "random_sparse"])
def test_a_stored_sparse_update_makes_the_base_the_adapted_model(name):
    problem = built()
    base = copy.deepcopy(problem.model)
    solution = solved(name, problem)
    for layer in problem.layers:
        weight = base.get_submodule(layer).weight
        update = {part: t for key, t in solution.stored.items() for of, _, part in [key.rpartition(".")] if of == layer}
        weight.data = apply_update(weight.data, update)
    same(base, solution.model, rtol=0, atol=0)
    # A chosen weight whose input is always zero gets no gradient and stays.
    changed = sum(len(t) for key, t in solution.stored.items() if key.endswith("values"))
    assert 0.8 * problem.granted < changed <= problem.granted == solution.log["trainable"]["numbers"]


@pytest.mark.parametrize("spec", [{}, {"model": "vit(dim=16, depth=2, heads=2, mlp_dim=24)"}])
@pytest.mark.parametrize("heads", [0.0, 0.5])
def test_stored_slices_make_the_base_the_adapted_model(spec, heads):
    problem = built(**spec)
    if heads and not spec:
        with pytest.raises(BadInput, match="s2ft: the model has no attention"):
            solved("s2ft", problem, heads=heads)
        return
    base = copy.deepcopy(problem.model)
    before = copy.deepcopy(base.state_dict())
    solution = solved("s2ft", problem, heads=heads)
    add_columns(base, dict(solution.stored))
    same(base, solution.model, rtol=0, atol=0)
    chosen = {key.removesuffix(".indices"): t for key, t in solution.stored.items() if key.endswith("indices")}
    for name, tensor in solution.model.state_dict().items():
        layer = name.removesuffix(".weight")
        others = [at for at in range(tensor.shape[-1]) if layer not in chosen or at not in chosen[layer].tolist()]
        assert torch.equal(tensor[..., others], before[name][..., others]), name


@pytest.mark.parametrize("name", ["lora", "bone", "s2ft", "lift", "random_sparse"])
def test_no_method_is_far_from_the_grant_and_says_what_is_left(name):
    log = solved(name, built()).log["trainable"]
    assert log["left"] == log["granted"] - log["numbers"]
    assert abs(log["left"]) <= 0.35 * log["granted"]


def test_principal_weights_are_chosen_anew():
    once, often = (solved("lift", built(), rank=2, lr=0.05, refresh=every) for every in (400, 3))
    counts = [sum(len(t) for key, t in one.stored.items() if key.endswith("values")) for one in (once, often)]
    assert counts[0] < counts[1]


def test_masks_are_chosen_by_their_score():
    stored = {s: solved("lift", built(), score=s, rank=2).stored for s in ("lowrank", "magnitude", "smallest")}
    values = [one["layers.1.values"].abs().mean() for one in stored.values()]
    assert values[1] > values[0] > values[2]


def test_forgetting_is_the_loss_added_to_each_item():
    problem = built()
    before = evaluate(problem.source, problem.model, problem.source.test)
    solution = solved("full", problem, lr=0.01)
    subject = adapt.subject(problem, solution)
    after = evaluate(problem.source, solution.model, problem.source.test)
    np.testing.assert_allclose(forgetting(subject).values, after["loss"] - before["loss"])
    np.testing.assert_allclose(forgetting(subject, of="accuracy").values, before["accuracy"] - after["accuracy"])
    assert forgetting(subject).ids == list(problem.source.test.ids)
    at = forgetting(subject, at=0.02)
    assert at.value != forgetting(subject).value
    assert at.signature != forgetting(subject).signature
    with pytest.raises(TrialFailed, match=r"the target's dev loss came down to .*; at=1 asks for 0"):
        forgetting(subject, at=1.0)


def test_between_two_evaluations_scores_are_interpolated():
    path = [{"dev_loss": loss, "x": [loss * 2, 1.0]} for loss in (4.0, 3.0, 1.0)]
    assert matched(path, 0.5, "x").tolist() == [4.0, 1.0]
    assert matched(path, 0.25, "x").tolist() == [6.0, 1.0]


@pytest.mark.parametrize("name", ["lora", "s2ft", "lift"])
def test_a_training_that_is_continued_has_the_same_path(name, tmp_path):
    """The second run finds the whole state of the first: scores by item, moments and masks come back from the file."""
    runs = []
    for folder in (None, tmp_path, tmp_path):
        problem = built()
        problem.folder = folder
        runs.append((solved(name, problem), problem.path))
    for solution, path in runs[1:]:
        same(solution.model, runs[0][0].model, rtol=0, atol=0)
        assert path == runs[0][1]


def test_forgetting_needs_a_source():
    with pytest.raises(BadInput, match="metric forgetting is for problems with a source"):
        forgetting(Subject(torch.nn.Identity(), "vision"))


def test_a_small_model_is_pretrained_once_for_all_methods(monkeypatch, tmp_path):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    first = built()
    assert evaluate(first.source, first.model, first.source.dev)["loss"].mean() < 2.3
    (file,) = tmp_path.glob("*.safetensors")
    written = file.stat().st_mtime_ns
    same(built().model, first.model, rtol=0, atol=0)
    assert file.stat().st_mtime_ns == written
    assert built(pretrain={"steps": 5}).budget.passes.forward == 0
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


DIGITS = {"dataset": "digits", "train": 64, "dev": 16, "test": 16}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trainable": 0}, "trainable=0 is not accepted; it takes a part above 0"),
        ({"trainable": True}, "trainable=True is not accepted"),
        ({"evaluations": 0}, "evaluations=0 is not accepted"),
        ({"granted": 5}, "unknown field granted"),
        ({"source": {"dataset": "digitz"}}, "digitz"),
        ({"source": {"dataset": "synthetic-lm", "tokenizer": "synthetic-lm"}}, "of kinds vision and causal-lm"),
        ({"pretrain": {"step": 3}}, "pretrain: unknown field step"),
        ({"pretrain": {"steps": -3}}, "pretrain: steps=-3 is not accepted"),
        ({"model": "digits-vit", "pretrain": {}}, "pretrain is for a small model; digits-vit is a checkpoint"),
        ({"model": "tiny-llama"}, "model tiny-llama is of kind causal-lm; the task is of kind vision"),
        ({"budget": {"steps": 0}}, "steps=0 is not accepted"),
    ],
)  # fmt: skip
def test_bad_fields_are_refused_in_one_line_without_building(changes, says):
    spec = {**adapt.sample(), **changes}
    with pytest.raises(BadInput) as refused:
        adapt.describe(spec)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_source_and_tasks_that_do_not_agree_are_refused():
    spec = adapt.sample()
    with pytest.raises(BadInput, match="field source is missing"):
        adapt.describe({key: value for key, value in spec.items() if key != "source"})
    with pytest.raises(BadInput, match="they must agree"):
        built(source={**DIGITS, "size": 4})
