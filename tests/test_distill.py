"""The distill track: softening, influence, staged pruning, block libraries, and problems that are refused."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness import registry
from harness.errors import BadInput, TrialFailed
from harness.metrics.distill import divergence_from_teacher
from harness.parts import softening
from harness.parts.blocks import normalized_error
from harness.parts.influence import Layer, conjugate_gradient, helpfulness, last_linear, lissa, output_layer
from harness.parts.kd import divergences
from harness.parts.select import exhaustive, greedy, select
from harness.solution import Solution
from harness.tracks import distill
from methods.distillation import puzzle, sparse_kd_multistage
from methods.distillation.kd_aif import adapted_weights
from methods.distillation.llama_blocks import blocks_of, size_of, variants

IMAGES, TEXT = distill.samples(registry.get("kd"))
TINY = {**TEXT, "parameters": 1.0, "student": TEXT["model"]}


def problem(spec: dict, **fields):
    return distill.build({**copy.deepcopy(spec), **fields}, seed=3)


def dirichlet(count: int, classes: int, seed: int = 0) -> torch.Tensor:
    p = -torch.rand(count, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log()
    return p / p.sum(-1, keepdim=True)


class TestSoftening:
    def test_the_power_operator_is_the_temperature_of_logits(self):
        p = dirichlet(1000, 7)
        for t in (1.0, 2.5, 8.0):
            torch.testing.assert_close(softening.soften(p, t), torch.softmax(p.log() / t, -1), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("operator", softening.OPERATORS)
    def test_axioms(self, operator):
        held = softening.axioms(operator, 1000, 10, torch.Generator().manual_seed(1))
        if operator == "top_k":
            assert not held["ranking"]
            assert not held["uniform limit"]
            assert not held["identity"]
        else:
            assert all(held.values()), held

    @pytest.mark.parametrize("operator", ["power", "mixing", "additive"])
    @pytest.mark.parametrize("temperature", [1.0, 3.0])
    def test_the_log_domain_computes_the_same(self, operator, temperature):
        logits = 4 * torch.randn(50, 6, generator=torch.Generator().manual_seed(2))
        expected = softening.soften(torch.softmax(logits.double(), -1), temperature, operator)
        found = softening.soft_log_probabilities(logits, temperature, operator).exp()
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-6)

    def test_a_path_of_n_steps_costs_one_over_n(self):
        start, end = dirichlet(20, 8, 3), dirichlet(20, 8, 4)
        both = (start * (start / end).log() + end * (end / start).log()).sum(-1)
        found = 256 * softening.path_divergence(start, end, 256)
        torch.testing.assert_close(found, both / 2, rtol=0.05, atol=0)
        one = softening.path_divergence(start, end, 1)
        torch.testing.assert_close(one, (start * (start / end).log()).sum(-1))


class TestDivergence:
    def test_it_is_the_usual_distillation_loss(self):
        generator = torch.Generator().manual_seed(5)
        student, teacher = (torch.randn(9, 5, generator=generator) for _ in range(2))
        expected = F.kl_div(
            F.log_softmax(student / 4, -1), F.softmax(teacher / 4, -1), reduction="batchmean"
        ) * 16  # fmt: skip
        torch.testing.assert_close(divergences(student, teacher, 4.0).mean(), expected)

    def test_of_text_it_is_the_mean_over_tokens_and_the_teacher_gets_no_gradient(self):
        generator = torch.Generator().manual_seed(6)
        student, teacher = (torch.randn(3, 4, 5, generator=generator, requires_grad=True) for _ in range(2))
        found = divergences(student, teacher, 2.0)
        flat = divergences(student.flatten(0, 1), teacher.flatten(0, 1), 2.0)
        torch.testing.assert_close(found, flat.view(3, 4).mean(1))
        found.sum().backward()
        assert teacher.grad is None

    @pytest.mark.parametrize("operator", ["power", "mixing", "additive"])
    def test_equal_answers_have_none(self, operator):
        logits = torch.randn(9, 5, generator=torch.Generator().manual_seed(7))
        assert divergences(logits, logits, 3.0, operator).abs().max() < 1e-5


def logistic(samples: int, seed: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(samples, generator=generator, dtype=torch.float64)
    return torch.cat([x, torch.ones(samples, 1, dtype=torch.float64)], 1), ((x[:, 0] + noise) > 0).long()


def fitted(x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, damping: float) -> torch.Tensor:
    """(2, D) weights of the penalized logistic regression, to convergence."""
    w = torch.zeros(2, x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        losses = F.cross_entropy(x @ w.T, y, reduction="none")
        loss = (weights * losses).sum() / len(y) + damping / 2 * w.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return w.detach()


def layer(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> Layer:
    p = torch.softmax(x @ w.T, -1).unsqueeze(1)
    return Layer(x.unsqueeze(1), p - F.one_hot(y, 2).unsqueeze(1), p)


class TestInfluence:
    DAMPING = 0.01

    @pytest.fixture(scope="class")
    def layers(self):
        (x, y), (vx, vy) = logistic(60), logistic(40, 9)
        w = fitted(x, y, torch.ones(60, dtype=torch.float64), self.DAMPING)
        return x, y, vx, vy, w, layer(x, y, w), layer(vx, vy, w)

    def test_it_agrees_with_leaving_a_sample_out(self, layers):
        x, y, vx, vy, w, train, validation = layers
        helps = helpfulness(train, validation, damping=self.DAMPING)
        base = F.cross_entropy(vx @ w.T, vy)
        without = []
        for row in range(60):
            weights = torch.ones(60, dtype=torch.float64)
            weights[row] = 0
            without.append(F.cross_entropy(vx @ fitted(x, y, weights, self.DAMPING).T, vy) - base)
        assert torch.corrcoef(torch.stack([helps, torch.stack(without)]))[0, 1] > 0.95

    def test_the_iterative_solvers_agree_with_the_direct_one(self, layers):
        *_, train, validation = layers
        gradient = validation.gradient()
        exact = torch.linalg.solve(train.hessian(self.DAMPING), gradient.flatten()).view_as(gradient)

        def product(v):
            return train.hessian_times(v, self.DAMPING)

        torch.testing.assert_close(conjugate_gradient(product, gradient, 50), exact, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(lissa(product, gradient, 3000, scale=2.0), exact, rtol=1e-4, atol=1e-6)

    def test_training_on_the_validation_samples_helps(self, layers):
        *_, validation = layers
        assert helpfulness(validation, validation, damping=self.DAMPING).sum() > 0

    def test_weights_are_between_one_over_e_and_e_and_equal_where_influence_is(self):
        weights = adapted_weights(torch.tensor([3.0, 1.0, 2.0]))
        assert weights.tolist() == pytest.approx([math.e, 1 / math.e, 1.0])
        assert adapted_weights(torch.full((3,), 0.7)).tolist() == [1.0, 1.0, 1.0]

    def test_flipped_labels_are_found_to_hurt(self):
        from sklearn.metrics import roc_auc_score

        from harness.registry import get

        spec = {**IMAGES, "task": {"dataset": "digits", "train": 300, "dev": 150, "test": 64, "noise": 0.3}}
        spec["budget"] = {"steps": 60, "batch": 32}
        noisy, clean = problem(spec), problem({**spec, "task": {**spec["task"], "noise": 0.0}})
        assert noisy.task.train.ids == clean.task.train.ids
        flipped = (noisy.task.train.labels != clean.task.train.labels).numpy()
        get("scratch")(noisy)
        layers = [output_layer(noisy.task, noisy.student, split) for split in (noisy.task.train, noisy.task.dev)]
        helps = helpfulness(*layers, solver="cg")
        assert roc_auc_score(flipped, -helps.numpy()) > 0.7

    def test_a_model_without_a_linear_layer_is_refused(self):
        with pytest.raises(BadInput, match="ends in a linear layer"):
            last_linear(nn.Sequential(nn.ReLU()))


class TestStages:
    def test_the_smallest_weights_over_all_tensors_go(self):
        weights = {"a": nn.Parameter(torch.tensor([[3.0, -1.0]])), "b": nn.Parameter(torch.tensor([[0.5, -2.0]]))}
        masks = sparse_kd_multistage.largest(weights, 0.5)
        assert masks["a"].tolist() == [[True, False]]
        assert masks["b"].tolist() == [[False, True]]

    def test_updates_are_shared_and_none_is_lost(self):
        assert sparse_kd_multistage.shares(100, 4, 0.5) == [17, 17, 17, 49]
        assert sparse_kd_multistage.shares(100, 1, 0.5) == [100]
        with pytest.raises(BadInput, match="leaves a stage without"):
            sparse_kd_multistage.shares(3, 4, 0.5)

    def test_what_is_gone_stays_gone_and_is_not_stored(self):
        made = problem(IMAGES)
        found = registry.get("sparse_kd_multistage")(made, sparsity=0.9)
        matrices = [p for p in found.model.parameters() if p.ndim > 1]
        kept, total = sum(int(p.count_nonzero()) for p in matrices), sum(p.numel() for p in matrices)
        assert kept <= total - round(0.9 * total)
        assert distill.size(made, found)["model_bytes"] < 0.25 * 4 * sum(p.numel() for p in made.teacher.parameters())


class TestSelection:
    SCORES = ((0.0, 1.0, 4.0), (0.0, 0.5, 3.0), (0.0, 2.0, 2.5), (0.0, 0.1, 9.0))
    COSTS = ((10, 6, 1), (8, 7, 2), (9, 4, 0), (5, 5, 1))

    def test_it_is_the_best_of_all_and_never_worse_than_greedy(self):
        least = -1.0
        for limit in range(32, 3, -1):
            found = select(self.SCORES, {"n": self.COSTS}, {"n": limit})
            best = exhaustive(self.SCORES, {"n": self.COSTS}, {"n": limit})
            total, expected, simple = (self.total(one) for one in (found, best, greedy(self.SCORES, self.COSTS, limit)))
            assert total == pytest.approx(expected)
            assert total <= simple + 1e-9
            assert total >= least - 1e-9  # a smaller budget never gives a better score
            least = total

    def total(self, chosen):
        return sum(row[at] for row, at in zip(self.SCORES, chosen, strict=True))

    def test_a_limit_that_cannot_be_met(self):
        assert select(self.SCORES, {"n": self.COSTS}, {"n": 3}) is None
        assert greedy(self.SCORES, self.COSTS, 3) is None

    def test_a_score_that_is_not_finite_is_never_taken(self):
        assert select([[0.0, float("nan"), 1.0]], {"n": [[9, 1, 2]]}, {"n": 5}) == [2]


class TestPuzzle:
    def test_without_a_limit_the_teacher_comes_back(self):
        made = problem(TINY)
        found = puzzle.puzzle(made, hidden=0.0)
        assert set(found.log["blocks"].values()) == {"same"}
        fresh = problem(TINY)
        chosen = [0] * 4
        library = {name: {"same": block} for name, block in blocks_of(fresh.teacher).items()}
        copied = puzzle.assembled(fresh.teacher, library, chosen).eval()
        inputs = fresh.task.dev.inputs[:4]
        assert torch.equal(fresh.task.logits(copied, inputs), fresh.targets(inputs))

    def test_the_assembly_has_the_numbers_that_were_counted(self):
        made = problem({**TEXT, "parameters": 0.8})
        found = puzzle.puzzle(made)
        assert found.log["numbers"] == size_of(found.model) <= made.parameters
        assert set(found.log["blocks"].values()) != {"same"}
        assert made.budget.passes.backward <= made.budget.granted.backward

    def test_scores_of_single_blocks_tell_how_their_assemblies_rank(self):
        taught = {**TINY, "teacher": {"steps": 60, "batch": 16, "lr": 0.01}}
        made = problem(taught)
        blocks = blocks_of(made.teacher)
        calls = puzzle.teacher_calls(made, blocks, 8)
        library = {name: variants(block, calls[name], (0.5, 0.1)) for name, block in blocks.items()}
        scores = puzzle.score_library(made, library, 8)
        free = [[0] * len(row) for row in scores]
        spent = made.budget.passes.forward
        found = puzzle.additivity(made, library, scores, free, 0, 8)
        assert made.budget.passes.forward == spent
        assert len(found["sums"]) == len(found["divergences"]) == 20
        assert found["spearman"] > 0.7
        # A single stand-in is its own sum: with every other block at a cost, only one place is free to change.
        costs = [[0] * len(row) if at == 1 else [0, *[1] * (len(row) - 1)] for at, row in enumerate(scores)]
        alone = puzzle.additivity(made, library, scores, costs, 0, 8, 4)
        assert alone["divergences"] == pytest.approx(alone["sums"], rel=1e-4, abs=1e-6)

    def test_an_assembly_beyond_the_limit_is_never_taken(self):
        made = problem(TINY)
        library = {name: {"same": block} for name, block in blocks_of(made.teacher).items()}
        found = puzzle.additivity(made, library, [[0.0]] * 4, [[1]] * 4, 3, 8)
        assert found == {"sums": [], "divergences": [], "spearman": None}

    def test_stand_ins_at_full_size_compute_the_same(self):
        made = problem(TINY)
        blocks = blocks_of(made.teacher)
        calls = puzzle.teacher_calls(made, blocks, 8)
        for name, block in blocks.items():
            call = calls[name][0]
            for variant, stand_in in variants(block, calls[name], (1.0,)).items():
                result = stand_in(*call.args, **call.kwargs)
                output = result[0] if isinstance(result, tuple) else result
                assert output.shape == call.output.shape
                if variant in ("same", "width 1.0"):
                    torch.testing.assert_close(output, call.output)

    def test_the_normalized_error_of_nothing_is_one(self):
        x = torch.randn(64, 8, generator=torch.Generator().manual_seed(10))
        assert float(normalized_error(x, x)) == 0
        assert float(normalized_error(torch.zeros_like(x), x)) == pytest.approx(1, abs=1e-3)

    def test_too_small_a_limit_is_one_line(self):
        made = problem(TEXT)
        made.parameters = 100
        with pytest.raises(
            BadInput, match="puzzle: parameters=100 numbers are not accepted; the smallest assembly has"
        ):
            puzzle.puzzle(made)

    def test_it_is_for_language_models(self):
        made = problem(IMAGES)
        with pytest.raises(BadInput, match="takes a teacher of kind causal-lm; this one is of kind vision"):
            distill.solve(registry.get("puzzle"), made, {})


def test_the_teachers_passes_count():
    made = problem(IMAGES)
    registry.get("kd")(made)
    assert made.budget.passes.forward == 2 * made.budget.passes.backward == 2 * 24 * 16


def test_a_teacher_is_made_once_and_is_the_same_for_every_method(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    first, again = problem(IMAGES), problem(IMAGES)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert all(torch.equal(a, b) for a, b in zip(first.teacher.parameters(), again.teacher.parameters(), strict=True))
    distill.build(copy.deepcopy(IMAGES), seed=4)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_solution_beyond_the_limit_fails_its_trial():
    made = problem({**TEXT, "parameters": 0.5})
    with pytest.raises(TrialFailed, match="the problem grants"):
        distill.size(made, Solution(model=made.teacher))


def test_divergence_from_the_teacher_is_a_metric_per_item():
    made = problem(IMAGES)
    scores = divergence_from_teacher(distill.subject(made, Solution(model=made.teacher)))
    assert len(scores.ids) == 64
    assert abs(scores.value) < 1e-6
    assert divergence_from_teacher(distill.subject(made, Solution(model=made.student))).value > 0.01


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model": "cnn2"}, "unknown model"),
        ({"model": "llama"}, "model llama is for tasks of kind causal-lm; this one is vision"),
        ({"student": "synthetic-lm"}, "model synthetic-lm is of kind causal-lm; the task is of kind vision"),
        ({"student": 3}, "model=3 is not accepted"),
        ({"teacher": {"steps": 0}}, "teacher: steps=0 is not accepted"),
        ({"teacher": {"rate": 1}}, "teacher: unknown field rate"),
        ({"model": "digits-vit"}, "teacher={'steps': 12, 'batch': 16} is not accepted: digits-vit is trained already"),
        ({"parameters": 0}, "parameters=0 is not accepted"),
        ({"parameters": 1.2}, "parameters=1.2 is not accepted"),
        ({"budget": {"steps": 0}}, "steps=0 is not accepted"),
        ({"students": "mlp"}, "unknown field students; did you mean student"),
    ],
)
def test_bad_problems_are_refused_in_a_line_before_anything_is_built(fields, says):
    with pytest.raises(BadInput) as refused:
        distill.describe({**IMAGES, **fields})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_teacher_and_student_read_the_same_tokens():
    spec = {**TEXT, "model": "tiny-llama", "student": "synthetic-lm"}
    del spec["teacher"]
    with pytest.raises(BadInput, match="their tokenizers differ"):
        distill.describe(spec)


def test_teacher_and_student_have_the_same_classes():
    spec = {**IMAGES, "model": "digits-vit", "student": "resnet20"}
    del spec["teacher"]
    assert distill.describe(spec)
    spec["task"] = {"dataset": "digits", "train": 32, "dev": 8, "test": 8, "classes": [0, 1]}
    spec["student"] = "mlp(width=8)"
    assert distill.build(spec, seed=0).parameters is None  # labels stay the data set's, so ten classes are ten


def test_a_student_beyond_the_limit_is_refused():
    with pytest.raises(BadInput, match=r"has \d+ numbers; parameters=0.01 of the teacher's"):
        problem({**TEXT, "parameters": 0.01})
