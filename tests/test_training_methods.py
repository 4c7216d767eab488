"""Optimizers and reparameterizations of the train track: the identities of their papers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.metrics.subject import Subject
from harness.metrics.weights import weight_norm
from harness.models.small import Perceptron
from harness.parts.linalg import (
    newton_schulz,
    polar,
    soft_spectral_clip,
    soft_spectral_clip_exact,
    spectral_norm,
)
from harness.parts.reparam import fold, reparametrize
from harness.tracks import train
from methods.training.adamw import adamw
from methods.training.convex import convex
from methods.training.lion_k import LionK
from methods.training.muon import Muon, split
from methods.training.shuffled_labels import shuffled_labels
from methods.training.spectra import Spectra, clipped
from methods.training.weight_compander import Compander, weight_compander

NAMES = ("l1", "l2", "lp", "group", "nuclear", "huber", "sqrt", "quad")
NORMS = ("l1", "l2", "lp", "group", "nuclear")


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def stepped(make, start, steps=30, gradients=None):
    """A parameter after steps of an optimizer on gradients drawn at random."""
    parameter = nn.Parameter(start.clone())
    optimizer = make([parameter])
    for step in range(steps):
        parameter.grad = random(*start.shape, seed=step + 1) if gradients is None else gradients(parameter, step)
        optimizer.step()
    return parameter.detach()


# Matrix functions


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (7, 7)])
@pytest.mark.parametrize("limit", [0.5, 2.0, 50.0])
def test_soft_clipping_by_products_is_that_of_the_decomposition(shape, limit):
    matrix = random(*shape)
    exact = soft_spectral_clip_exact(matrix, limit)
    found = soft_spectral_clip(matrix, limit, iterations=15)
    assert (found - exact).norm() <= 1e-4 * exact.norm()
    assert spectral_norm(found) < limit


def test_soft_clipping_turns_with_its_matrix_and_leaves_a_small_one():
    matrix = random(5, 8, dtype=torch.float64)
    q, r = (torch.linalg.qr(random(n, n, seed=n, dtype=torch.float64)).Q for n in (5, 8))
    turned = soft_spectral_clip(q @ matrix @ r, 1.0, iterations=20)
    torch.testing.assert_close(turned, q @ soft_spectral_clip(matrix, 1.0, iterations=20) @ r)
    torch.testing.assert_close(soft_spectral_clip(matrix, 1e6), matrix)


def test_newton_schulz_brings_singular_values_near_one():
    for shape in ((12, 30), (30, 12)):
        values = torch.linalg.svdvals(newton_schulz(random(*shape)))
        assert 0.6 < values.min() <= values.max() < 1.3
        torch.testing.assert_close(torch.linalg.svdvals(polar(random(*shape))), torch.ones(12))


# Muon


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_muon_is_torchs_in_its_precision(adjust, shape):
    options = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95}
    ours = stepped(lambda p: Muon(p, **options, adjust=adjust, dtype=torch.bfloat16), random(*shape), 10)
    theirs = stepped(lambda p: torch.optim.Muon(p, **options, adjust_lr_fn=adjust), random(*shape), 10)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_muon_takes_the_matrices_of_the_body():
    named = dict(Perceptron(6, [5, 5], 3).named_parameters())
    hidden, rest = split(named)
    assert [tuple(p.shape) for p in hidden] == [(5, 6), (5, 5)]
    assert set(rest) == {"layers.0.bias", "layers.1.bias", "head.weight", "head.bias"}


# Lion-K


@pytest.mark.parametrize("name", NAMES)
def test_the_subgradient_is_one_and_the_conjugate_is_tight_at_it(name):
    """K(v) >= K(u) + <d, v - u> for every v, and K(u) + K*(d) = <u, d>, for d = dK(u)."""
    k = convex(name, edge=0.3)
    u = random(4, 6, dtype=torch.float64)
    d = k.subgradient(u)
    for seed in range(20):
        v = random(4, 6, seed=seed + 50, dtype=torch.float64)
        assert k.value(v) >= k.value(u) + (d * (v - u)).sum() - 1e-9
    scaled = d * (1 - 1e-12)  # within the ball, whatever the rounding
    torch.testing.assert_close(k.value(u) + k.conjugate(scaled), (u * d).sum(), rtol=1e-9, atol=1e-9)
    zero = k.subgradient(torch.zeros(4, 6))
    assert torch.count_nonzero(zero) == 0


@pytest.mark.parametrize("name", NORMS)
def test_weights_enter_the_ball_of_the_dual_norm_and_stay(name):
    """|x'| - 1/decay <= (1 - lr decay) (|x| - 1/decay), whatever the gradients."""
    k, lr, decay = convex(name), 0.05, 2.0
    parameter = nn.Parameter(3 * random(5, 7, dtype=torch.float64))
    optimizer = LionK([parameter], k, lr=lr, weight_decay=decay)
    for step in range(150):
        before = float(k.dual(parameter.detach())) - 1 / decay
        parameter.grad = random(5, 7, seed=step + 1, dtype=torch.float64)
        optimizer.step()
        assert float(k.dual(parameter.detach())) - 1 / decay <= (1 - lr * decay) * before + 1e-9
    assert float(k.dual(parameter.detach())) <= 1 / decay + 1e-3


def test_the_square_gives_momentum_with_decay_bit_for_bit():
    def momentum(parameters):
        (p,) = parameters
        state = torch.zeros_like(p)

        class Momentum:
            def step(self):
                with torch.no_grad():
                    direction = 0.9 * state + (1 - 0.9) * p.grad
                    p.sub_(0.01 * (direction + 0.1 * p))
                    state.mul_(0.99).add_(p.grad, alpha=1 - 0.99)

        return Momentum()

    ours = stepped(lambda p: LionK(p, convex("quad"), lr=0.01, weight_decay=0.1), random(5, 7))
    assert torch.equal(ours, stepped(momentum, random(5, 7)))


def test_lion_of_equal_betas_without_decay_is_signum():
    def signum(parameters):
        (p,) = parameters
        average = torch.zeros_like(p)

        class Signum:
            def step(self):
                with torch.no_grad():
                    average.mul_(0.9).add_(p.grad, alpha=1 - 0.9)
                    p.sub_(0.01 * average.sign())

        return Signum()

    ours = stepped(lambda p: LionK(p, convex("l1"), lr=0.01, betas=(0.9, 0.9)), random(5, 7))
    torch.testing.assert_close(ours, stepped(signum, random(5, 7)), rtol=0, atol=1e-7)


def test_the_lyapunov_function_falls_along_the_flow():
    """Of dm = -a g - c m, dx = dK(m - e (a g + c m)) - decay x, once decay x is inside dom K* (section 3)."""
    a, c, e, decay, k = 1.0, 1.0, 0.5, 0.5, convex("huber", edge=0.5)
    scale = torch.linspace(0.5, 2, 6, dtype=torch.float64)
    target = random(6, dtype=torch.float64)
    x, m = 0.1 * random(6, seed=1, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)

    def energy():
        coupled = k.conjugate(decay * x) + k.value(m) - decay * (m * x).sum()
        loss = (scale * (x - target).square()).sum() / 2
        return float(a * loss + c / decay * k.conjugate(decay * x) + (1 - e * c) / (1 + e * decay) * coupled)

    before = energy()
    start = before
    for _ in range(4000):
        pull = a * scale * (x - target) + c * m
        x, m = x + 1e-3 * (k.subgradient(m - e * pull) - decay * x), m - 1e-3 * pull
        assert energy() <= before + 1e-6
        before = energy()
    assert before < start - 0.1


def test_lion_solves_the_problem_in_the_box_better_than_adamw():
    """Card lion-k: a quadratic whose optimum lies outside |x| <= 1, decay 1; distance to the best point of the box."""
    nearer = 0
    for seed in range(3):
        root = random(20, 20, seed=seed)
        matrix, far = root @ root.T / 20 + 0.1 * torch.eye(20), 2 * random(20, seed=seed + 100)

        def gradient(x, step, matrix=matrix, far=far):
            return matrix @ (x.detach() - far)

        best = torch.zeros(20)
        for _ in range(3000):
            best = (best - 0.1 * (matrix @ (best - far))).clamp(-1, 1)

        def decaying(make):
            def made(parameters, make=make):
                optimizer = make(parameters)
                return _Linear(optimizer, 0.02, 2000)

            return made

        lion = stepped(
            decaying(lambda p: LionK(p, convex("l1"), lr=0.02, weight_decay=1.0)), torch.zeros(20), 2000, gradient
        )
        adam = stepped(
            decaying(lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=1.0)), torch.zeros(20), 2000, gradient
        )
        nearer += int((lion - best).norm() < (adam - best).norm())
    assert nearer == 3


class _Linear:
    """An optimizer whose rate falls to zero."""

    def __init__(self, optimizer, lr, total):
        self.optimizer, self.lr, self.total, self.done = optimizer, lr, total, 0

    def step(self):
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * (1 - self.done / self.total)
        self.optimizer.step()
        self.done += 1


# SPECTRA


def test_a_limit_without_end_leaves_the_base_optimizer():
    options = {"lr": 0.02, "betas": (0.8, 0.999), "weight_decay": 0.1}
    plain = stepped(lambda p: torch.optim.AdamW(p, **options), random(6, 4))
    loose = stepped(lambda p: Spectra(torch.optim.AdamW(p, **options), limit=1e9), random(6, 4))
    scale = (6 / 4) ** 0.5
    first = stepped(lambda p: Spectra(torch.optim.AdamW(p, **options), limit=1e9), random(6, 4), 1)
    base = stepped(lambda p: torch.optim.AdamW(p, **options), random(6, 4), 1)
    decayed = (1 - 0.02 * 0.1) * random(6, 4)
    torch.testing.assert_close(first - decayed, scale * (base - decayed), rtol=1e-3, atol=1e-5)
    wide = stepped(lambda p: Spectra(torch.optim.AdamW(p, **options), limit=1e9), random(4, 6))
    torch.testing.assert_close(
        wide, stepped(lambda p: torch.optim.AdamW(p, **options), random(4, 6)), rtol=1e-3, atol=1e-4
    )
    assert not torch.allclose(plain, loose)


def test_the_norm_of_the_weights_is_bounded_at_every_step():
    lr, decay, limit, alpha = 0.05, 0.5, 1.0, 2**0.5
    parameter = nn.Parameter(random(8, 4))
    optimizer = Spectra(torch.optim.AdamW([parameter], lr=lr, weight_decay=decay), limit=limit, iterations=15)
    for step in range(100):
        before = spectral_norm(parameter.detach())
        parameter.grad = random(8, 4, seed=step + 1)
        optimizer.step()
        assert spectral_norm(parameter.detach()) <= (1 - lr * decay) * before + alpha * lr * limit + 1e-5
    assert spectral_norm(parameter.detach()) <= alpha * limit / decay


def test_a_vector_is_shortened_only_where_it_is_longer():
    assert torch.equal(clipped(torch.tensor([0.6, 0.8]), 1.0), torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(clipped(torch.tensor([3.0, 4.0]), 5.0 / 3), torch.tensor([3.0, 4.0]) / 10**0.5)
    assert clipped(random(4, 3, 2, 2), 0.1).shape == (4, 3, 2, 2)


def test_clipping_gradients_before_their_norm_withstands_spikes():
    """Card spectra: a fifth of the gradients carries a spike of rank one and norm 200."""
    target = random(16, 24)

    def gradient(x, step):
        generator = torch.Generator().manual_seed(step)
        spike = torch.outer(*(nn.functional.normalize(torch.randn(n, generator=generator), dim=0) for n in (16, 24)))
        return x.detach() - target + (200 * spike if torch.rand((), generator=generator) < 0.2 else 0)

    def loss(x):
        return float((x - target).square().sum() / 2)

    sgd = lambda p: torch.optim.SGD(p, lr=0.05)  # noqa: E731
    spectral = stepped(lambda p: Spectra(sgd(p), limit=1e9, pre=2.0), torch.zeros(16, 24), 400, gradient)
    assert loss(spectral) < 1 < loss(stepped(sgd, torch.zeros(16, 24), 400, gradient))


# The weight compander


def test_the_compander_is_bounded_its_slope_known_and_its_inverse_right():
    psi = Compander(0.3, 0.2)
    v = torch.linspace(-50, 50, 201)
    assert psi(v).abs().max() < 0.3 * torch.pi / 2
    x = random(20, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(Compander(0.3, 0.2).double(), x)
    torch.testing.assert_close(psi.inverse(psi(v[90:111])), v[90:111], rtol=1e-4, atol=1e-5)


def test_folding_keeps_the_function_and_the_names():
    model = Perceptron(6, [5], 3)
    names, x = set(model.state_dict()), random(4, 6)
    layers = reparametrize(model, ["layers.0", "head"], lambda weight: Compander(1.0, 0.5))
    before = model(x)
    fold(model, layers)
    torch.testing.assert_close(model(x), before)
    assert set(model.state_dict()) == names


def test_a_wide_compander_is_plain_training():
    plain = train.build(train.sample(), seed=0)
    wide = train.build(train.sample(), seed=0)
    from methods.training.sgd import sgd

    one, other = sgd(plain, lr=0.05), weight_compander(wide, kappa=1e6, lr=0.05)
    for a, b in zip(
        one.model.parameters(),
        (dict(other.model.named_parameters())[n] for n, _ in one.model.named_parameters()),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_learned_compander_trains_its_curve():
    problem = train.build(train.sample(), seed=0)
    solution = weight_compander(problem, learned=True)
    assert solution.log["curve"]
    assert all("parametrizations" not in name for name in solution.model.state_dict())


# Methods and metrics


def test_shuffled_labels_learn_less_than_the_labels():
    spec = {**train.sample(), "budget": {"steps": 60, "batch": 32}}
    told, shuffled = train.build(spec, seed=0), train.build(spec, seed=0)
    labels = shuffled.task.train.labels.clone()
    solutions = adamw(told, lr=0.01), shuffled_labels(shuffled, lr=0.01)
    learned, misled = train.develop(told, solutions[0]), train.develop(shuffled, solutions[1])
    assert learned < 0.7 * misled
    assert torch.equal(shuffled.task.train.labels, labels)


def test_weight_norms_are_those_of_the_body():
    model = Perceptron(6, [5, 5], 3)
    found = weight_norm(Subject(model, "vision"))
    weights = [model.layers[at].weight.detach() for at in (0, 1)]
    assert list(found.extra) == ["layers.0", "layers.1"]
    assert found.extra["layers.0"] == pytest.approx(float(torch.linalg.svdvals(weights[0])[0]), rel=1e-5)
    assert found.values.tolist() == pytest.approx([sum(found.extra.values()) / 2])
    largest = weight_norm(Subject(model, "vision"), norm="max")
    assert largest.values.tolist() == pytest.approx([sum(float(one.abs().max()) for one in weights) / 2])
