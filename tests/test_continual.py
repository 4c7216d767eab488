"""The continual track: the sequence, the accuracy matrix, exemplars, and what each method promises."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from harness import registry
from harness.errors import BadInput, TrialFailed
from harness.metrics.continual import average_forgetting, backward_transfer
from harness.metrics.tasks import accuracy
from harness.parts import continual as parts
from harness.parts.vq import ema_codebooks, nearest_codes
from harness.tasks import Split
from harness.tracks import continual
from methods.continual.dkvb import KeyValueBottleneck
from methods.continual.weight_aligning import align_rows, incremental_loss

SPEC = {
    "model": "mlp(width=64, depth=1)",
    "task": {"dataset": "digits", "train": 500, "dev": 50, "test": 200},
    "sequence": [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]],
    "memory": 10,
    "budget": {"steps": 150, "batch": 32, "forwards": 2.5},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def entry(name: str):
    return next(one for one in registry.entries("method", "continual") if one.name == name)


def solve(name: str, spec: dict | None = None, seed: int = 1, **params):
    problem = continual.build(copy.deepcopy(spec or continual.sample()), seed=seed)
    defaults = {key: parameter.default for key, parameter in entry(name).params.items()}
    return problem, continual.solve(entry(name), problem, {**defaults, **params})


def test_the_sequence_has_every_class_once_in_an_order_drawn_from_the_seed():
    orders = set()
    for seed in range(4):
        problem = continual.build({**continual.sample(), "sequence": 4}, seed=seed)
        classes = [parts.classes_of(task.train) for task in problem.tasks]
        assert sorted(label for own in classes for label in own) == list(range(10))
        assert sorted(map(len, classes)) == [2, 2, 3, 3]
        assert sum(len(task.test) for task in problem.tasks) == len(problem.task.test)
        assert all(
            set(parts.classes_of(task.test)) <= set(own) for task, own in zip(problem.tasks, classes, strict=True)
        )
        orders.add(str(classes))
    assert len(orders) > 1


def test_unseen_classes_cannot_be_answered_and_the_matrix_is_the_models():
    problem, solution = solve("finetune", SPEC)
    matrix = np.array(solution.log["accuracy_matrix"])
    assert matrix.shape == (2, 2)
    assert matrix[0, 1] == 0
    assert matrix[0, 0] > 0.8
    last = [float(np.mean(right)) for right in problem.rights[-1]]
    sizes = [len(task.test) for task in problem.tasks]
    whole = accuracy(continual.subject(problem, solution)).value
    assert whole == pytest.approx(np.average(last, weights=sizes))


def test_forgetting_and_backward_transfer_by_hand():
    right = lambda *bits: np.array(bits, dtype=float)  # noqa: E731
    rights = [
        [right(1, 0), right(0, 0), right(0)],
        [right(1, 1), right(1, 0), right(0)],
        [right(0, 0), right(1, 1), right(1)],
    ]
    assert parts.accuracy_matrix(rights).tolist() == [[0.5, 0, 0], [1, 0.5, 0], [0, 1, 1]]
    assert [each.mean() for each in parts.forgotten(rights)] == [1.0, -0.5]
    assert [each.mean() for each in parts.transferred(rights)] == [-0.5, 0.5]


def test_metrics_weigh_every_task_alike():
    problem, solution = solve("replay")
    subject = continual.subject(problem, solution)
    matrix = np.array(solution.log["accuracy_matrix"])
    forgotten, transferred = average_forgetting(subject), backward_transfer(subject)
    assert forgotten.value == pytest.approx(np.mean(matrix[:-1, :-1].max(0) - matrix[-1, :-1]))
    assert transferred.value == pytest.approx(np.mean(matrix[-1, :-1] - np.diag(matrix)[:-1]))
    assert forgotten.nested
    assert forgotten.signature.startswith("average_forgetting|digits@")


def test_herding_takes_the_mean_first_and_beats_chance():
    vectors = torch.nn.functional.normalize(torch.randn(60, 6, generator=generator()) + 0.5, dim=1)
    rows = parts.herding(vectors, 60)
    assert sorted(rows) == list(range(60))
    assert rows[0] == int((vectors - vectors.mean(0)).norm(dim=1).argmin())
    away = lambda rows: float((vectors[rows].mean(0) - vectors.mean(0)).norm())  # noqa: E731
    chance = [away(torch.randperm(60, generator=generator(seed))[:8]) for seed in range(20)]
    assert away(rows[:8]) < min(chance)


def test_the_memory_is_never_larger_than_granted_and_shared_by_classes():
    def split(n: int) -> Split:
        return Split(torch.arange(float(n))[:, None], torch.zeros(n, dtype=torch.long), [str(row) for row in range(n)])

    memory = parts.Exemplars(10)
    memory.add({0: split(10), 1: split(10)})
    assert [len(memory.kept[label]) for label in (0, 1)] == [5, 5]
    memory.add({2: split(10)})
    assert [len(memory.kept[label]) for label in (0, 1, 2)] == [4, 3, 3]
    assert memory.kept[0].inputs.flatten().tolist() == [0, 1, 2, 3]
    assert memory.tensors()["exemplars.inputs"].shape == (10, 1)
    problem, solution = solve("replay")
    kept = {name: tensor for name, tensor in solution.stored.items() if name.startswith("exemplars")}
    assert len(kept["exemplars.inputs"]) == problem.memory


def test_replay_without_memory_is_finetuning():
    spec = {**continual.sample(), "memory": 0}
    _, without = solve("replay", spec)
    _, tuned = solve("finetune", spec)
    assert all(torch.equal(a, b) for a, b in zip(without.model.parameters(), tuned.model.parameters(), strict=True))


def test_weight_aligning_equalizes_norms_and_keeps_the_order_inside_old_and_new():
    head = torch.nn.Linear(16, 10, bias=False)
    x = torch.randn(40, 16, generator=generator())
    torch.nn.init.normal_(head.weight, generator=generator(1))
    head.weight.data[5:] *= 3
    old, new = list(range(5)), list(range(5, 10))
    before = head(x)
    gamma = align_rows(head, old, new)
    after, norms = head(x), head.weight.norm(dim=1)
    assert gamma < 1
    torch.testing.assert_close(norms[old].mean(), norms[new].mean())
    for rows in (old, new):
        assert torch.equal(before[:, rows].argsort(1), after[:, rows].argsort(1))
    assert torch.equal(before[:, old], after[:, old])
    assert align_rows(head, old, new) == pytest.approx(1, abs=1e-6)


def test_distillation_has_the_papers_share_and_leaves_unseen_classes_alone():
    problem = continual.build(copy.deepcopy(SPEC), seed=0)
    batch = problem.tasks[1].train.take(range(8))
    teacher = copy.deepcopy(problem.model)
    loss = incremental_loss(teacher, [0, 1, 2], [0, 1, 2, 5, 6, 7, 8, 9], 2.0)
    value = loss(problem.model, batch, generator())
    logits = problem.model(batch.inputs)
    new = torch.nn.functional.cross_entropy(
        logits[:, [0, 1, 2, 5, 6, 7, 8, 9]],
        torch.tensor([[0, 1, 2, 5, 6, 7, 8, 9].index(label) for label in batch.labels.tolist()]),
    )
    soft = torch.softmax(logits[:, :3] / 2, -1)
    kept = -(soft * torch.log_softmax(logits[:, :3] / 2, -1)).sum(-1).mean()
    assert float(value.detach()) == pytest.approx(float((5 / 8 * new + 3 / 8 * kept).detach()), rel=1e-5)
    value.backward()
    assert problem.model.head.weight.grad[[3, 4]].abs().max() == 0


def test_weight_aligning_after_all_has_no_bias_and_no_negative_weight():
    _, solution = solve("weight_aligning")
    head = solution.model.head
    assert head.bias.abs().max() == 0
    assert head.weight.min() >= 0
    assert len(solution.log["gamma"]) == 2


def test_values_that_are_not_fetched_do_not_move():
    problem, solution = solve("dkvb", codebooks=4, codes=16)
    model = solution.model
    fetched = torch.cat([model.fetched(task.train.inputs) for task in problem.tasks], 1)
    for book in range(4):
        touched = torch.zeros(16, dtype=torch.bool)
        touched[fetched[book]] = True
        assert model.values[book][~touched].abs().max() == 0 if (~touched).any() else True
    before = model.values.detach().clone()
    one = problem.tasks[0].train.take([0])
    loss = torch.nn.functional.cross_entropy(model(one.inputs), one.labels)
    (gradient,) = torch.autograd.grad(loss, model.values)
    assert int((gradient.abs().sum(-1) > 0).sum()) == 4  # one row of each codebook
    assert torch.equal(before, model.values)


def test_the_order_of_codebooks_does_not_matter_and_one_key_is_a_constant():
    model = KeyValueBottleneck(torch.randn(3, 8, 2, generator=generator()), classes=5)
    model.freeze(torch.randn(3, 4, 2, generator=generator(1)))
    model.values.data.normal_(generator=generator(2))
    x = torch.randn(6, 8, generator=generator(3))
    other = copy.deepcopy(model)
    for name in ("projections", "keys"):
        setattr(other, name, getattr(model, name)[[2, 0, 1]])
    other.values.data = model.values.data[[2, 0, 1]]
    torch.testing.assert_close(other(x), model(x))
    model.freeze(torch.zeros(3, 1, 2))
    model.values.data.normal_(generator=generator(2))
    assert model(x).unique(dim=0).shape[0] == 1


def test_codebooks_find_clusters_and_seed_codes_that_are_not_used():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (centres.repeat(100, 1) + 0.1 * torch.randn(300, 2, generator=generator()))[None]
    codes = ema_codebooks(points, 3, generator(3), passes=40, batch=100)
    assert torch.cdist(centres, codes[0]).min(1).values.max() < 0.5
    brute = torch.cdist(points[0], codes[0]).argmin(1)
    assert torch.equal(nearest_codes(points, codes)[0], brute)


def test_the_key_value_bottleneck_remembers_where_finetuning_forgets():
    found = {}
    for name in ("finetune", "dkvb"):
        problem, solution = solve(name, {**SPEC, "sequence": 5})
        found[name] = accuracy(continual.subject(problem, solution)).value
    assert found["dkvb"] > found["finetune"] + 0.2


def test_calls_of_after_task_are_counted():
    problem = continual.build(continual.sample(), seed=0)

    def lazy(problem):
        problem.after_task(problem.model)
        return finetuned

    _, finetuned = solve("finetune")
    with pytest.raises(TrialFailed, match="after_task was called 1 times; the sequence has 3 tasks"):
        continual.solve(lazy, problem, {})
    for _ in range(2):
        problem.after_task(problem.model)
    with pytest.raises(TrialFailed, match=r"more often than there are tasks \(3\)"):
        problem.after_task(problem.model)


def test_a_random_encoder_gives_features_that_stay():
    spec = {**continual.sample(), "model": "linear", "encoder": "random(width=24)"}
    problem = continual.build(spec, seed=0)
    assert problem.task.train.inputs.shape[1:] == (24,)
    assert problem.task.train.inputs.min() >= 0
    assert "encoder:random(width=24)" in problem.task.signature
    assert torch.equal(problem.unlabelled, continual.build(spec, seed=0).unlabelled)


def test_a_checkpoint_encodes_its_last_features():
    spec = {**continual.sample(), "model": "linear", "encoder": "digits-vit"}
    problem = continual.build(spec, seed=0)
    assert problem.task.train.inputs.shape[1:] == (64,)
    assert continual.describe(spec)["encoder"]


REFUSED = {
    r"sequence=\[\] is not accepted; it takes a number of tasks of at least 2": {"sequence": []},
    "sequence=1 is not accepted": {"sequence": 1},
    r"sequence\[1\] has class 1, which sequence\[0\] has too; a class belongs to one": {"sequence": [[0, 1], [1, 2]]},
    r"sequence\[1\]=\[\] is not accepted; it takes a list of classes": {"sequence": [[0], []]},
    "memory=-1 is not accepted": {"memory": -1},
    "random has no parameter 'size'": {"encoder": "random(size=3)"},
    "encoder=3 is not accepted": {"encoder": 3},
    "unknown field memroy; did you mean memory": {"memroy": 3},
    "budget: steps=0 is not accepted": {"budget": {"steps": 0}},
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_fields_are_refused_in_one_line(message):
    with pytest.raises(BadInput, match=message) as caught:
        continual.describe({**continual.sample(), **REFUSED[message]})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sequence", "message"), [([[0], [12]], "has class 12; the data has"), (11, "more than the data's 10")]
)
def test_classes_that_the_data_does_not_have_are_refused(sequence, message):
    with pytest.raises(BadInput, match=message):
        continual.build({**continual.sample(), "sequence": sequence}, seed=0)
