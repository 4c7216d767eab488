"""The search track: elastic layers, spaces, tables, and the methods' own invariants."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from harness.errors import BadInput
from harness.metrics import search as metrics
from harness.metrics.subject import Subject
from harness.parts.elastic import ElasticBatchNorm2d, prefix_mask, recalibrate
from harness.search.table import Table
from harness.tasks import cross_entropy
from harness.tracks import search
from methods.search.bignas import sandwich, start_as_identity
from methods.search.darts_pt import Mixed, darts_pt, strengths
from methods.search.pa_da import Sampler, annealed, gradient_bound
from methods.search.ranking import rank
from methods.search.w_pca import components

SPECS = search.samples()
CELLS, CONVS, LLAMAS = SPECS
NAMES = ["cells", "convs", "llamas"]


def problem(spec: dict, **fields):
    return search.build({**copy.deepcopy(spec), **fields}, seed=3)


def some(problem, count: int = 6) -> list:
    archs = problem.draw(count)
    return [problem.space.smallest, problem.space.largest, *archs]


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_an_exported_architecture_equals_the_slice_and_the_mixture_of_one(spec, training):
    made = problem(spec, parameters=None)
    made.supernet.train(training)
    inputs = made.task.train.inputs[:8]
    with torch.no_grad():
        for arch in some(made):
            model = made.export(arch).train(training)
            one_hot = [
                nn.functional.one_hot(torch.tensor(at), len(choices)).float()
                for at, choices in zip(arch, made.space.genes.values(), strict=True)
            ]
            expected = copy.deepcopy(made.supernet)(inputs, arch)
            mixed = copy.deepcopy(made.supernet)(inputs, one_hot)
            torch.testing.assert_close(model(inputs), expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_numbers_are_those_of_the_exported_model_and_bigger_choices_have_more(spec):
    made = problem(spec)
    for arch in some(made, 3):
        assert made.space.numbers(arch) == sum(p.numel() for p in made.space.build(arch).parameters())
    assert made.space.numbers(made.space.smallest) < made.space.numbers(made.space.largest)


def test_no_argument_is_the_largest_and_slices_share_the_supernets_storage():
    made = problem(CONVS)
    inputs = made.task.train.inputs[:4]
    made.supernet.eval()
    assert torch.equal(made.supernet(inputs), made.supernet(inputs, made.space.largest))
    made.supernet(inputs, made.space.smallest).sum().backward()
    weight = made.supernet.stages[0][0].conv.weight
    assert weight.grad[:4].abs().sum() > 0
    assert weight.grad[4:].abs().sum() == 0


def test_a_mixture_of_sizes_weighs_each_channel_by_the_sizes_that_have_it():
    mask = prefix_mask((1, 2, 4), torch.tensor([0.5, 0.3, 0.2]))
    assert mask.tolist() == pytest.approx([1.0, 0.5, 0.2, 0.2])


def test_recalibrated_statistics_are_those_of_the_batch():
    norm = ElasticBatchNorm2d(3)
    with torch.no_grad():
        norm.running_mean.fill_(9.0)
    model = nn.Sequential(norm, nn.Dropout(0.5))
    x = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    recalibrate(model, [x])
    torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, x.var((0, 2, 3)))
    assert norm.momentum == 0.1
    assert model.training


def test_only_allowed_architectures_are_drawn():
    made = problem(CONVS, parameters=1500)
    drawn = made.draw(1000)
    assert len(set(drawn)) == len(drawn) == sum(map(made.allowed, made.space)) < len(made.space)
    assert all(made.space.numbers(arch) <= 1500 for arch in drawn)


def test_ranking_takes_no_more_passes_than_are_left():
    made = problem(CELLS)
    scores = rank(made, list(made.space), alone=4)
    assert 1 < len(scores) < len(made.space)
    assert made.budget.passes.forward <= made.budget.granted.forward - 4 * made.budget.batch


class TestBigNAS:
    def test_residual_blocks_start_as_identities(self):
        made = problem(CONVS)
        start_as_identity(made.supernet)
        made.supernet.eval()
        inputs, largest = made.task.train.inputs[:4], made.space.largest
        shallow = tuple(
            0 if gene.startswith("depth") else at for gene, at in zip(made.space.genes, largest, strict=True)
        )
        torch.testing.assert_close(made.supernet(inputs, largest), made.supernet(inputs, shallow))

    def test_no_gradient_goes_into_the_answers_that_teach(self):
        """Only the largest uses the outer channels, so what reaches them is the gradient of its labels alone."""
        made = problem(CONVS)
        batch = made.task.train.take(range(16))
        made.supernet.eval()
        sandwich(made, batch, [made.space.smallest], distil=True).backward()
        outer = made.supernet.stages[0][0].conv.weight.grad[4:].clone()
        made.supernet.zero_grad()
        cross_entropy(made.supernet(batch.inputs), batch.labels).backward()
        torch.testing.assert_close(outer, made.supernet.stages[0][0].conv.weight.grad[4:])


class TestPaDa:
    def test_distributions_are_annealed_and_keep_a_floor(self):
        norms = torch.tensor([0.0, 1.0, 3.0])
        assert torch.equal(annealed(norms, 0.0), torch.full((3,), 1 / 3))
        p = annealed(norms, 0.6)
        assert float(p.sum()) == pytest.approx(1.0)
        assert float(p.min()) >= 0.4 / 3 - 1e-7
        assert torch.equal(annealed(torch.zeros(3), 0.9), torch.full((3,), 1 / 3))

    def test_the_bound_is_the_norm_of_the_gradient_in_the_logits(self):
        logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
        labels = torch.tensor([0, 1, 2, 3, 0])
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, labels, reduction="sum"), logits)
        torch.testing.assert_close(gradient_bound(logits.detach(), labels), gradient.norm(dim=1))

    def test_uniform_draws_are_uniform(self):
        from scipy import stats

        sampler = Sampler(problem(CELLS))
        drawn = np.array([sampler.path() for _ in range(2000)])
        for gene in drawn.T:
            assert stats.chisquare(np.bincount(gene, minlength=4)).pvalue > 1e-4

    def test_weighted_samples_have_the_gradient_of_all(self):
        """E over draws of the loss weighted by 1 / (N q) is the mean loss, whatever q."""
        losses = torch.rand(50, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        q = annealed(losses, 0.8)
        torch.testing.assert_close((q * losses / (q * 50)).sum(), losses.mean())

    def test_importance_sampling_of_samples_lowers_the_gradients_variance(self):
        """trace Var of a single-sample estimate: sum ||g||^2 / (N^2 q) is least where q is proportional to the norm."""
        made = problem(CELLS)
        batch = made.task.train.take(range(64))
        made.supernet.eval()
        logits = made.supernet(batch.inputs)
        errors = torch.softmax(logits, -1) - nn.functional.one_hot(batch.labels, 10)
        norms = errors.norm(dim=1).detach()
        variance = {share: float((norms**2 / (64**2 * annealed(norms, share))).sum()) for share in (0.0, 0.5, 1.0)}
        assert variance[1.0] < variance[0.5] < variance[0.0]


class TestWPca:
    def test_equal_directions_are_counted_strictly(self):
        x = torch.cat([torch.eye(8), -torch.eye(8)])
        assert components(x, 0.5) == 5  # exactly half of the variance is not more than half of it
        assert components(x, 0.55) == 5
        assert components(x, 0.99) == 8

    def test_shift_scale_and_copies_change_nothing_and_more_energy_takes_more(self):
        x = torch.randn(40, 6, generator=torch.Generator().manual_seed(4)) * torch.tensor([9.0, 5, 3, 2, 1, 0.5])
        count = components(x, 0.9)
        assert count == components(7 * x + 3, 0.9) == components(torch.cat([x, x]), 0.9)
        assert components(x, 0.5) <= count <= components(x, 0.99) <= 6

    def test_it_agrees_with_scikit_learn(self):
        from sklearn.decomposition import PCA

        x = torch.randn(60, 10, generator=torch.Generator().manual_seed(5)).cumsum(1)
        assert components(x, 0.9) == PCA(n_components=0.9, svd_solver="full").fit(x.numpy()).n_components_

    def test_few_samples_cap_the_count(self):
        assert components(torch.randn(4, 20, generator=torch.Generator().manual_seed(6)), 0.999) <= 4


class TestDartsPt:
    def test_a_zero_operation_has_no_strength(self):
        """Taking away what adds nothing changes nothing, when the other weights are not rescaled."""
        made = problem(CELLS)
        mixed = Mixed(made)
        without = strengths(made, mixed, 0)
        with torch.no_grad():
            dev, size = made.task.dev, made.budget.batch
            losses = [
                float(cross_entropy(made.supernet(x, mixed.mixture()), y)) * len(y)
                for x, y in zip(dev.inputs.split(size), dev.labels.split(size), strict=True)
            ]
        assert without[0] == pytest.approx(sum(losses) / len(dev), rel=1e-5)

    def test_fixed_genes_are_the_discrete_network(self):
        made = problem(CELLS)
        mixed = Mixed(made)
        mixed.fixed = {0: 3, 1: 1, 2: 2}
        made.supernet.eval()
        inputs = made.task.train.inputs[:4]
        torch.testing.assert_close(mixed(inputs), made.supernet(inputs, (3, 1, 2)))

    def test_the_limit_on_parameters_is_kept(self):
        limit = 400
        made = problem(CELLS, parameters=limit)
        found = darts_pt(made)
        assert made.space.numbers(found.arch) <= limit

    def test_every_choice_is_tried_once_for_each_gene(self):
        made = problem(CELLS)
        mixed = Mixed(made)
        before = made.budget.passes.forward
        for gene in range(3):
            strengths(made, mixed, gene)
        assert made.budget.passes.forward - before == 3 * 4 * len(made.task.dev)


def tabled(predicted: dict, arch: str = "b") -> Subject:
    loss = np.array([[3.0, 3.2], [2.0, 2.2], [1.0, 1.2]])
    table = Table("toy", ("a", "b", "c"), loss, np.array([[0.1, 0.2], [0.5, 0.7], [0.9, 0.9]]), "0" * 64)
    extra = {"table": table, "predicted": predicted, "arch": arch, "allowed": ["a", "b", "c"]}
    return Subject(nn.Identity(), "vision", extra=extra)


def test_kendall_tau_and_regret_against_a_table():
    assert metrics.kendall_tau(tabled({"a": 0.0, "b": 1.0, "c": 2.0})).value == pytest.approx(1.0)
    assert metrics.kendall_tau(tabled({"a": 2.0, "b": 1.0, "c": 0.0})).value == pytest.approx(-1.0)
    assert metrics.kendall_tau(tabled({"a": 2.0})).value == 0.0
    assert metrics.regret(tabled({})).value == pytest.approx(0.9 - 0.6)
    assert metrics.regret(tabled({}, "c"), of="loss").value == 0.0
    with pytest.raises(BadInput, match="name a `table`"):
        metrics.regret(Subject(nn.Identity(), "vision"))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model": "cell(channels=4)"}, "unknown space 'cell'; did you mean cells"),
        ({"model": "llamas"}, "space llamas is for tasks of kind causal-lm"),
        ({"model": "cells(channels=0)"}, "channels=0 is not accepted"),
        ({"model": "cells(channels=[2, 4])"}, "grid of 2"),
        ({"model": 7}, "model=7 is not accepted"),
        ({"parameters": 0}, "parameters=0 is not accepted"),
        ({"parameters": 1.5}, "parameters=1.5 is not accepted"),
        ({"table": "nowhere"}, "unknown table 'nowhere'"),
        ({"budget": {"steps": 0}}, "steps=0 is not accepted"),
        ({"supernet": "x"}, "unknown field supernet"),
    ],
)
def test_bad_problems_are_refused_in_a_line_before_anything_is_built(fields, says):
    with pytest.raises(BadInput) as refused:
        search.describe({**CELLS, **fields})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_limit_below_the_smallest_architecture_is_refused():
    with pytest.raises(BadInput, match="parameters=10 is not accepted; the smallest architecture"):
        problem(CELLS, parameters=10)


def test_a_table_of_another_space_is_refused():
    table = Table("toy", ("a",), np.zeros((1, 1)), np.zeros((1, 1)), "")
    with pytest.raises(BadInput, match="is not of the space cells"):
        table.require(["b"], "cells")
