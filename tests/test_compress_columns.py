"""The column solver against its identities, and against textbook loops in double precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.compress.columns import inverse_factor, solve_columns, triangular_inverse
from harness.errors import TrialFailed


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated_hessian(n: int, seed: int = 0, tokens: int | None = None) -> Tensor:
    """Float64, of inputs with unequal scales and correlated neighbours."""
    x = torch.randn(tokens or 3 * n, n, generator=generator(seed), dtype=torch.float64)
    x = (x + 0.7 * x.roll(1, 1)) * torch.logspace(-1, 1, n, dtype=torch.float64)
    return 2 * x.T @ x / len(x)


def problem(m: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, damped Hessian and U, float64."""
    weight = torch.randn(m, n, generator=generator(seed + 1), dtype=torch.float64)
    hessian = correlated_hessian(n, seed)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(n, dtype=torch.float64)
    return weight, damped, inverse_factor(hessian)


def rounding(step: float = 0.25, limit: float = 1e9):
    """Nearest multiple of `step`, clamped to +-limit: with a small limit most columns are clamped."""
    return lambda w, j: ((w / step).round() * step).clamp(-limit, limit)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 999))
def test_inverse_factor_is_the_upper_cholesky_factor_of_the_inverse(n: int, seed: int) -> None:
    hessian = correlated_hessian(n, seed)
    U = inverse_factor(hessian)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(n, dtype=torch.float64)
    assert torch.equal(U, U.triu())
    assert (U.diagonal() > 0).all()
    torch.testing.assert_close(U @ damped @ U.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(U, torch.linalg.cholesky(damped.inverse(), upper=True), rtol=1e-7, atol=1e-9)


def test_inverse_factor_leaves_the_hessian_alone_and_raises_the_damping_where_it_must() -> None:
    vector = torch.randn(1, 8, generator=generator(), dtype=torch.float64)
    singular = vector.T @ vector  # rank 1
    before = singular.clone()
    U = inverse_factor(singular, damping=0.0)
    damped = singular + 1e-4 * singular.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    torch.testing.assert_close(U @ damped @ U.T, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-6)
    assert torch.equal(singular, before)


def test_a_hessian_that_no_damping_mends_fails_in_one_line() -> None:
    with pytest.raises(TrialFailed, match=r"Hessian \(3 inputs\) is not positive definite"):
        inverse_factor(-torch.eye(3))


@pytest.mark.parametrize("n", [1, 5, 512, 700])
def test_triangular_inverse(n: int) -> None:
    lower = torch.linalg.cholesky(correlated_hessian(n) + torch.eye(n, dtype=torch.float64))
    torch.testing.assert_close(triangular_inverse(lower) @ lower, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("limit", [1e9, 0.5])
@pytest.mark.parametrize("n", [1, 16, 50, 300])
def test_error_identities_hold_also_under_clamping(n: int, limit: float) -> None:
    weight, damped, U = problem(7, n)
    solved = solve_columns(weight, U, rounding(limit=limit))
    change = weight - solved.quantized
    torch.testing.assert_close(change, solved.errors @ U, rtol=0, atol=1e-10)
    proxy = (change @ damped * change).sum(1)
    torch.testing.assert_close(proxy, solved.errors.square().sum(1), rtol=1e-9, atol=0)
    torch.testing.assert_close(proxy, solved.loss, rtol=1e-9, atol=0)
    assert solved.quantized.abs().max() <= limit


def textbook(weight: Tensor, U: Tensor, quantize, fit=None, group: int = 1) -> Tensor:
    """The loop of the paper, one column after the other, without any blocking."""
    W, Q = weight.clone(), torch.zeros_like(weight)
    for j in range(W.shape[1]):
        if fit is not None and j % group == 0:
            fit(W[:, j : j + group].T, j)
        Q[:, j] = quantize(W[:, j], j)
        W[:, j:] -= ((W[:, j] - Q[:, j]) / U[j, j])[:, None] * U[j, j:]
    return Q


@pytest.mark.parametrize(("n", "group"), [(64, 16), (96, 24), (90, 15), (200, 100), (130, 10), (300, 150), (40, 8)])
@pytest.mark.parametrize("block", [1, 7, 32, 128, 1000])
def test_any_block_and_group_size_gives_the_textbook_result(n: int, group: int, block: int) -> None:
    weight, _, U = problem(5, n)
    steps: dict[int, Tensor] = {}

    def fit(columns: Tensor, j: int) -> None:
        assert columns.shape == (min(group, n - j), 5)
        steps[j // group] = columns.abs().amax(0) / 3

    def quantize(w: Tensor, j: int) -> Tensor:
        return (w / steps[j // group]).round() * steps[j // group]

    expected = textbook(weight, U, quantize, fit, group)
    fitted = {key: value.clone() for key, value in steps.items()}
    solved = solve_columns(weight, U, quantize, start_group=fit, group_size=group, block=block)
    torch.testing.assert_close(solved.quantized, expected, rtol=0, atol=1e-9)
    for key, value in fitted.items():
        torch.testing.assert_close(steps[key], value, rtol=0, atol=1e-9)


def test_the_last_group_may_be_shorter_and_the_whole_row_is_one_group() -> None:
    weight, _, U = problem(3, 50)
    seen: list[tuple[int, int]] = []
    solve_columns(weight, U, rounding(), start_group=lambda c, j: seen.append((j, len(c))), group_size=16)
    assert seen == [(0, 16), (16, 16), (32, 16), (48, 2)]
    seen.clear()
    solve_columns(weight, U, rounding(), start_group=lambda c, j: seen.append((j, len(c))))
    assert seen == [(0, 50)]


def test_uncorrelated_inputs_leave_every_column_as_it_was() -> None:
    weight = torch.randn(9, 70, generator=generator())
    U = inverse_factor(3.0 * torch.eye(70))
    solved = solve_columns(weight, U, rounding())
    assert torch.equal(solved.quantized, (weight / 0.25).round() * 0.25)


def test_rows_are_independent() -> None:
    weight, _, U = problem(11, 60)
    order = torch.randperm(11, generator=generator())
    whole = solve_columns(weight, U, rounding()).quantized
    torch.testing.assert_close(solve_columns(weight[order], U, rounding()).quantized, whole[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(solve_columns(weight[3:4], U, rounding()).quantized, whole[3:4], rtol=0, atol=1e-12)


def test_single_precision_is_close_to_double() -> None:
    weight, _, U = problem(16, 256)
    double = solve_columns(weight, U, rounding(0.05))
    single = solve_columns(weight.float(), U.float(), rounding(0.05))
    assert single.quantized.dtype == torch.float32
    differ = (single.quantized.double() - double.quantized).abs() > 0.01
    assert differ.double().mean() < 0.02  # a few weights fall on the other side of a tie
    torch.testing.assert_close(single.loss.sum().double(), double.loss.sum(), rtol=1e-2, atol=0)


def test_the_weight_and_the_number_of_threads_are_left_alone() -> None:
    weight, _, U = problem(4, 40)
    before, threads = weight.clone(), torch.get_num_threads()
    inside = []
    solve_columns(weight, U, rounding(), start_group=lambda c, j: inside.append(torch.get_num_threads()))
    assert torch.equal(weight, before)
    assert inside == [threads]

    def broken(w: Tensor, j: int) -> Tensor:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        solve_columns(weight, U, broken)
    assert torch.get_num_threads() == threads


def strictly_upper(n: int, seed: int) -> Tensor:
    return 0.05 * torch.randn(n, n, generator=generator(seed), dtype=torch.float64).triu(1)


def textbook_with_terms(weight: Tensor, U: Tensor, quantize, P: Tensor, R: Tensor) -> Tensor:
    """GPTAQ's and ResComp's loop, without blocks."""
    W, Q = weight.clone(), torch.zeros_like(weight)
    for j in range(W.shape[1]):
        w = W[:, j].clone()
        Q[:, j] = quantize(w, j)
        error = (w - Q[:, j]) / U[j, j]
        W[:, j + 1 :] -= error[:, None] * U[j, j + 1 :]
        W[:, j + 1 :] += w[:, None] * P[j, j + 1 :] + (weight[:, j] - w)[:, None] * R[j, j + 1 :]
    return Q


@pytest.mark.parametrize("block", [16, 48, 1000])
def test_terms_of_gptaq_and_rescomp(block: int) -> None:
    weight, _, U = problem(6, 100)
    P, R = strictly_upper(100, 5), strictly_upper(100, 6)
    solved = solve_columns(weight, U, rounding(), P=P, R=R, block=block)
    expected = textbook_with_terms(weight, U, rounding(), P, R)
    torch.testing.assert_close(solved.quantized, expected, rtol=0, atol=1e-9)
    only = solve_columns(weight, U, rounding(), P=P, block=block)
    expected = textbook_with_terms(weight, U, rounding(), P, torch.zeros_like(R))
    torch.testing.assert_close(only.quantized, expected, rtol=0, atol=1e-9)


def test_terms_that_are_zero_change_nothing() -> None:
    weight, _, U = problem(6, 100)
    plain = solve_columns(weight, U, rounding()).quantized
    zero = torch.zeros_like(U)
    assert torch.equal(solve_columns(weight, U, rounding(), P=zero, R=zero).quantized, plain)
    assert torch.equal(solve_columns(weight, U, rounding(), beta=0.0).quantized, plain)


def textbook_of_blocks(
    weight: Tensor, U: Tensor, quantize, P: Tensor, R: Tensor, beta: float, block: int, carry
) -> Tensor:
    """The loop of the released codes: blocks, with what leaves a block chosen by `carry`."""
    W, Q = weight.clone(), torch.zeros_like(weight)
    n = W.shape[1]
    for a in range(0, n, block):
        b = min(a + block, n)
        latent, errors = W[:, a:b].clone(), torch.zeros_like(W[:, a:b])
        for i in range(b - a):
            j = a + i
            if i:
                W[:, j] -= beta * (W[:, j] - weight[:, j])
            w = W[:, j].clone()
            latent[:, i] = w
            Q[:, j] = quantize(w, j)
            errors[:, i] = ((w - Q[:, j]) - beta * (w - weight[:, j])) / U[j, j]
            W[:, j + 1 : b] -= errors[:, i : i + 1] * U[j, j + 1 : b]
            W[:, j + 1 : b] += w[:, None] * P[j, j + 1 : b] + (weight[:, j] - w)[:, None] * R[j, j + 1 : b]
        out = carry(latent.T, Q[:, a:b].T, a).T
        W[:, b:] -= errors @ U[a:b, b:] - out @ P[a:b, b:] - (weight[:, a:b] - out) @ R[a:b, b:]
    return Q


@pytest.mark.parametrize("block", [16, 32, 48, 128])
@pytest.mark.parametrize(
    "carry", [lambda latent, rounded, j: rounded, lambda latent, rounded, j: latent.clamp(-0.5, 0.5)]
)
def test_what_leaves_a_block_is_what_carry_says(block: int, carry) -> None:
    weight, _, U = problem(6, 200)
    P, R = strictly_upper(200, 5), strictly_upper(200, 6)
    solved = solve_columns(weight, U, rounding(), P=P, R=R, block=block, carry=carry)
    expected = textbook_of_blocks(weight, U, rounding(), P, R, 0.0, block, carry)
    torch.testing.assert_close(solved.quantized, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("block", [16, 48, 128])
def test_first_order_term_of_foem(block: int) -> None:
    weight, _, U = problem(6, 200)
    zero = torch.zeros_like(U)
    solved = solve_columns(weight, U, rounding(), beta=0.2, block=block)
    expected = textbook_of_blocks(weight, U, rounding(), zero, zero, 0.2, block, lambda latent, rounded, j: latent)
    torch.testing.assert_close(solved.quantized, expected, rtol=0, atol=1e-9)
    plain = solve_columns(weight, U, rounding(), block=block)
    assert torch.equal(solved.quantized[:, 0], plain.quantized[:, 0])
    assert not torch.equal(solved.quantized, plain.quantized)
