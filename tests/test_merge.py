"""The merge track: algebra of weights, permutations, and what each method promises of its result."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from harness import registry
from harness.engine.tracks import track_module
from harness.errors import BadInput
from harness.metrics.merge import barrier
from harness.metrics.tasks import accuracy
from harness.models.small import build as small
from harness.parts import permutation, singular, statedict
from harness.parts.batchnorm import recalibrate
from harness.tracks import merge
from methods.merging.lowrank import factored, restored
from methods.merging.rmm import Basis
from methods.merging.weight_matching import report

REBASIN = {
    "model": "mlp(width=32, depth=2)",
    "task": {"dataset": "digits", "train": 600, "dev": 50, "test": 150},
    "tasks": [{}],
    "start": "fresh",
    "experts": 2,
    "finetune": {"steps": 150, "lr": 0.005},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def entry(name: str):
    return next(one for one in registry.entries("method", "merge") if one.name == name)


def solve(name: str, spec: dict | None = None, seed: int = 3, **params):
    problem = merge.build(copy.deepcopy(spec or merge.sample()), seed=seed)
    defaults = {key: parameter.default for key, parameter in entry(name).params.items()}
    return problem, merge.solve(entry(name), problem, {**defaults, **params})


def distance(a, b) -> float:
    return statedict.global_norm(statedict.sub(a, b))


@pytest.fixture(scope="module", params=["mlp(width=12, depth=2)", "cnn(width=4, depth=2)", "resnet(depth=1)"])
def model(request):
    dataset = {"dataset": "digits", "train": 64, "dev": 16, "test": 32}
    from harness.tasks import make_task

    task = make_task(dataset, generator())
    if request.param.startswith("resnet"):  # which takes colour images
        inputs = torch.randn(16, 3, 16, 16, generator=generator())
    else:
        inputs = task.test.inputs
    made = small(request.param, task, generator(1)).eval()
    batches = [inputs.roll(shift, -1) for shift in range(3)]
    return recalibrate(made, batches), inputs


def test_a_permuted_network_computes_the_same_and_is_found_again(model):
    net, inputs = model
    spec, state = permutation.spec_of(net), statedict.state_of(net)
    moved = permutation.apply(spec, permutation.random_permutations(spec, generator()), state)
    assert distance(moved, state) > 1
    with torch.no_grad():
        torch.testing.assert_close(statedict.loaded(net, moved)(inputs), net(inputs), atol=1e-4, rtol=1e-4)
    found = permutation.weight_matching(spec, state, moved, generator(2), restarts=3)
    back = permutation.apply(spec, found, moved)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_network_matched_with_itself_stays(model):
    net, _ = model
    spec, state = permutation.spec_of(net), statedict.state_of(net)
    found = permutation.weight_matching(spec, state, state, generator())
    assert all(torch.equal(order, torch.arange(len(order))) for order in found.values())
    assert report(spec, state, state)["R(0.0)"] == pytest.approx(1, abs=1e-5)


def test_matching_keeps_singular_values_and_never_loses_overlap():
    problem = merge.build(copy.deepcopy(REBASIN), seed=0)
    spec = permutation.spec_of(problem.model)
    a, b = (expert.state for expert in problem.experts)
    overlaps = [permutation.overlap(spec, a, b, permutation.identity(spec))]
    for sweeps in (1, 2, 100):
        found = permutation.weight_matching(spec, a, b, generator(1), sweeps=sweeps)
        overlaps.append(permutation.overlap(spec, a, b, found))
    assert overlaps == sorted(overlaps)
    assert overlaps[-1] > overlaps[0]
    moved = permutation.apply(spec, found, b)
    # |a - pi b|^2 = |a|^2 + |b|^2 - 2 <a, pi b>
    expected = statedict.dot(a, a) + statedict.dot(b, b) - 2 * statedict.dot(a, moved)
    assert distance(a, moved) ** 2 == pytest.approx(expected, rel=1e-4)
    for name in ("layers.0.weight", "layers.1.weight"):
        values = [torch.linalg.svdvals(state[name]) for state in (b, moved)]
        torch.testing.assert_close(*values, atol=1e-5, rtol=1e-5)


def test_the_distance_decomposes_over_singular_vectors():
    """|A - B|^2 = sum s_a^2 + sum s_b^2 - 2 sum s_a,i s_b,j (u_a,i . u_b,j)(v_a,i . v_b,j)."""
    a, b = torch.randn(2, 7, 5, generator=generator(), dtype=torch.float64)
    (Ua, Sa, Va), (Ub, Sb, Vb) = singular.svd(a), singular.svd(b)
    cross = (Sa[:, None] * Sb * (Ua.T @ Ub) * (Va.T @ Vb)).sum()
    assert float((a - b).square().sum()) == pytest.approx(float(Sa.square().sum() + Sb.square().sum() - 2 * cross))


def test_weight_matching_lowers_the_barrier_far_more_than_the_distance():
    """The card's (a = b: no barrier) and (b), on one pair."""
    values = {}
    for name in ("average", "weight_matching"):
        problem, solution = solve(name, REBASIN, seed=0)
        subject = merge.subject(problem, solution)
        values[name] = (barrier(subject).value, accuracy(subject).value)
        if name == "weight_matching":
            rows = solution.log["aligned"][0]
        subject.extra["ends"] = [subject.extra["ends"][0]] * 2
        assert barrier(subject).value == pytest.approx(0, abs=1e-6)
    assert values["weight_matching"][0] < 0.5 * values["average"][0]
    assert values["weight_matching"][1] > values["average"][1]
    assert rows["after"]["l2"] / rows["before"]["l2"] > 0.5
    assert rows["after"]["R(0.5)"] > rows["before"]["R(0.5)"] + 0.3


def test_one_expert_comes_back_from_every_method_that_adds_it_whole():
    spec = {**merge.sample(), "tasks": [{"transform": "mirror"}]}
    for name, params in (
        ("average", {}),
        ("opcm", {}),
        ("task_arithmetic", {"scaling": 1.0}),
        ("ties", {"density": 1.0}),
    ):
        problem, solution = solve(name, spec, **params)
        (expert,) = problem.experts
        merged = statedict.state_of(solution.model)
        assert all(torch.allclose(merged[key], expert.state[key], atol=1e-6) for key in merged), name


def test_opcm_keeps_the_mean_norm_and_projects_the_taken_directions_out():
    _, solution = solve("opcm")
    norms = solution.log["norms"]
    assert len(norms) == 3
    assert solution.log["norm"] == pytest.approx(sum(norms) / 3, rel=1e-5)
    merged, change = torch.randn(2, 9, 6, generator=generator())
    basis = singular.svd(merged, full=True)
    rank = singular.split_rank(basis.S, 0.5)
    left = singular.project_out(change, basis, rank)
    inside = basis.U.T @ left @ basis.V
    assert rank > 0
    assert inside[:rank, :rank].abs().max() < 1e-5
    assert inside.diagonal().abs().max() < 1e-5
    assert left.norm() <= change.norm()


def test_opcm_leaves_an_expert_alone_whose_rows_and_columns_are_free():
    taken, new = torch.zeros(6, 8), torch.zeros(6, 8)
    taken[:3, :4], new[3:, 4:] = torch.randn(3, 4, generator=generator()), torch.randn(3, 4, generator=generator(1))
    basis = singular.svd(taken, full=True)
    coordinates = basis.U.T @ new.double() @ basis.V
    left = singular.project_out(new, basis, singular.split_rank(basis.S, 0.9))
    # But for the diagonal, which is cleared even there: it depends on the basis of the null space.
    expected = (
        basis.U
        @ (coordinates - torch.diag_embed(coordinates.diagonal(), dim1=0, dim2=1)[:6] @ torch.eye(6, 8).double())
        @ basis.V.T
    )
    torch.testing.assert_close(left, expected)


@pytest.mark.parametrize(("alpha", "rank"), [(0.0, 0), (0.3, 0), (0.5, 1), (0.8, 2), (1.0, 0)])
def test_the_block_of_a_part_of_the_singular_values(alpha, rank):
    assert singular.split_rank(torch.tensor([5.0, 3.0, 2.0]), alpha) == rank
    assert singular.split_rank(torch.zeros(3), alpha) == 0


def test_rmm_is_exact_with_all_components_and_loses_the_discarded_energy_otherwise():
    vectors = torch.randn(11, 4, 5, generator=generator())
    centred = vectors - vectors.mean(-1, keepdim=True)
    values = torch.linalg.svdvals(centred)
    errors = []
    for components in range(5):
        basis = Basis.of(vectors, components)
        found = torch.stack([basis.revert(task) for task in range(5)], -1)
        errors.append(float((found - vectors).square().sum()))
        assert errors[-1] == pytest.approx(float(values[:, components:].square().sum()), abs=1e-4)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-8
    same = vectors[..., :1].expand(-1, -1, 5)
    torch.testing.assert_close(Basis.of(same, 0).revert(2), same[..., 0])


def test_rmm_stores_what_the_formula_says_and_all_components_give_the_experts_back():
    problem, solution = solve("rmm", rank=4, components=2)
    tasks, rank, parts = 3, 4, 2
    matrices = [tensor for tensor in problem.base.values() if tensor.ndim > 1]
    rest = sum(tensor.numel() for tensor in problem.base.values() if tensor.ndim < 2)
    positions = sum(sum(tensor.shape) for tensor in matrices)
    numbers = sum(tensor.numel() for tensor in solution.stored.values())
    base = sum(tensor.numel() for tensor in problem.base.values())
    assert numbers == base + positions * (parts * (rank + tasks) + rank) + tasks * rest
    whole, exact = solve("rmm", rank=16, components=2)
    for expert in whole.experts:
        kept = restored(whole.base, factored(expert.state, whole.base, 16))
        got = statedict.state_of(exact.model(expert.task))
        assert all(torch.allclose(got[name], kept[name], atol=1e-5) for name in got)


def test_truncated_experts_store_as_much_as_rmm_at_the_rank_of_the_formula():
    def stored(name, **params):
        return merge.size(*solve(name, **params))["numbers"]

    assert stored("rmm", rank=3, components=1) == stored("truncated_experts", rank=3)  # (1 (3 + 3) + 3) / 3


def test_algebra_round_trips():
    problem = merge.build(merge.sample(), seed=0)
    base, expert = problem.base, problem.experts[0].state
    back = statedict.axpy(base, [(1.0, statedict.sub(expert, base))])
    assert all(torch.allclose(back[name], expert[name], atol=1e-6) for name in expert)
    layout = statedict.Layout.of(base)
    again = layout.unflatten(layout.flatten(base))
    assert all(torch.equal(again[name], base[name]) for name in base)
    assert torch.equal(statedict.interpolate(base, expert, 1.0)["head.bias"], expert["head.bias"])
    with pytest.raises(BadInput, match="no model to average"):
        statedict.mean([])


def test_ties_keeps_the_largest_and_the_agreeing():
    vectors = [{"w": torch.tensor([3.0, -0.1, 2.0, 0.0])}, {"w": torch.tensor([1.0, -4.0, -3.0, 0.0])}]
    assert statedict.trimmed(vectors[0], 0.5)["w"].tolist() == [3.0, 0.0, 2.0, 0.0]
    assert statedict.elected(vectors)["w"].tolist() == pytest.approx([2.0, -2.05, -3.0, 0.0])


def test_tied_weights_are_kept_once():
    tied = torch.nn.ModuleDict({"a": torch.nn.Embedding(5, 3), "b": torch.nn.Linear(3, 5, bias=False)})
    tied["b"].weight = tied["a"].weight
    state = statedict.state_of(tied)
    assert list(state) == ["a.weight"]
    other = statedict.loaded(tied, {"a.weight": torch.ones(5, 3)})
    assert torch.equal(other["b"].weight, torch.ones(5, 3))
    assert statedict.linear_weights(tied) == set()


def test_the_seed_draws_the_order_and_the_cache_changes_nothing(monkeypatch, tmp_path):
    first = [expert.task for expert in merge.build(merge.sample(), seed=0).experts]
    assert any([e.task for e in merge.build(merge.sample(), seed=seed).experts] != first for seed in range(1, 5))
    problem = merge.build(merge.sample(), seed=7)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    anew = merge.build(merge.sample(), seed=7)
    for a, b in zip(problem.experts, anew.experts, strict=True):
        assert a.task == b.task
        assert all(torch.equal(a.state[name], b.state[name]) for name in a.state)
    assert problem.seed() == anew.seed()


SAMPLE = merge.sample()
REFUSED = {
    r"tasks=\[\] is not accepted; it takes a list of at least 1": {"tasks": []},
    r"tasks\[1\] is the same as tasks\[0\]": {"tasks": [{}, {}]},
    "start='best' is not accepted; it takes base or fresh": {"start": "best"},
    "experts=0 is not accepted": {"experts": 0},
    "pretrain: steps=-1 is not accepted": {"pretrain": {"steps": -1}},
    "finetune: unknown field rate": {"finetune": {"rate": 1}},
    "unknown field taks": {"taks": []},
    "unknown transform 'mirrow'; did you mean mirror": {"tasks": [{"transform": "mirrow"}]},
    "an expert and its model are checkpoints": {"tasks": [{"expert": "digits-vit"}]},
    "budget: steps=0": {"budget": {"steps": 0}},
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_fields_are_refused_in_one_line(message):
    with pytest.raises(BadInput, match=message) as caught:
        merge.describe({**SAMPLE, **REFUSED[message]})
    assert "\n" not in str(caught.value)


def test_models_of_different_shapes_are_refused_before_anything_is_read():
    spec = {"model": "digits-vit", "tasks": [{"dataset": "digits", "expert": "resnet20"}]}
    with pytest.raises(BadInput, match=r"expert resnet20 does not fit model digits-vit: tensor \S+ is missing"):
        merge.describe(spec)
    a, b = {"w": torch.zeros(2, 3)}, {"w": torch.zeros(3, 2)}
    with pytest.raises(BadInput, match=r"tensor w has shape \[3, 2\], in the base \[2, 3\]"):
        statedict.sub(b, a)


def test_task_vectors_need_a_base():
    for name in ("task_arithmetic", "opcm", "rmm", "ties"):
        with pytest.raises(BadInput, match="the problem has none"):
            solve(name, REBASIN)


def test_a_checkpoint_is_its_own_base_and_an_expert():
    spec = {
        "model": "digits-vit",
        "task": {"dataset": "digits", "train": 64, "dev": 16, "test": 32},
        "tasks": [{}, {"transform": "mirror", "expert": "digits-vit"}],
        "finetune": {"steps": 2, "batch": 8},
    }
    problem = merge.build(spec, seed=0)
    given = next(expert for expert in problem.experts if expert.task == "digits+mirror")
    assert all(torch.equal(given.state[name], problem.base[name]) for name in problem.base)
    assert track_module("merge").describe(spec)["experts.1"]


def test_pairs_are_all_compared():
    problem, solution = solve("average", {**REBASIN, "experts": 3, "finetune": {"steps": 5}})
    scores = barrier(merge.subject(problem, solution), points=3)
    pairs = [f"{a}-{b}" for a, b in itertools.combinations(range(3), 2)]
    assert list(scores.extra) == pairs
    assert scores.value == pytest.approx(sum(scores.extra.values()) / 3)
