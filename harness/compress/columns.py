"""Column-by-column rounding with error compensation: what GPTQ and the methods that build on it share.

Notation of the papers: a weight W (m, n), the damped Hessian H (n, n) of its calibration inputs, and U, upper
triangular, with inverse(H) = UT U. Column j is rounded to q, its error e = (w - q) / U[j, j] is spread over the later
columns, W[:, j+1:] -= e U[j, j+1:], and in the end W0 - Q = E U, so that tr((W0 - Q) H (W0 - Q)T) = ||E||^2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.compress.threads import threads
from harness.errors import TrialFailed

Round = Callable[[Tensor, int], Tensor]
"""`quantize(w, j)`: the rounded column j, (m,); `w` is the column as it is now and must not be modified. Called once
for each j, in order."""
StartGroup = Callable[[Tensor, int], None]
"""`start_group(columns, j)`: the columns (width, m) of the group that starts at j, one to a row, as they are once all
the earlier ones are rounded: the moment to fit its grid, or to choose its codes together."""
Carry = Callable[[Tensor, Tensor, int], Tensor]
"""`carry(latent, rounded, j)`: what P and R multiply beyond the block that starts at column j; all are (width, m)."""

PANEL = 16
"""Columns that receive updates one by one; wider runs receive matrix products. 16 of 4096 rows stay in cache."""
STRIP = 512
"""Columns of a triangular inverse that are computed at a time."""


def inverse_factor(hessian: Tensor, damping: float = 0.01, tries: int = 5) -> Tensor:
    """U (n, n), upper triangular with a positive diagonal: inverse(H + damping * mean(diag H) * I) = UT U.

    By one Cholesky factorization of the matrix with its indices reversed, J H J = L LT, and one triangular inverse:
    U = J inverse(L) J. Where that fails the damping is multiplied by 10; after `tries` failures raises TrialFailed.
    `hessian` is not modified.
    """
    reverse = hessian.flip(0, 1)
    diagonal = reverse.diagonal()
    undamped = diagonal.clone()
    for _ in range(tries):
        diagonal.copy_(undamped + damping * undamped.mean())
        lower, failed = torch.linalg.cholesky_ex(reverse)
        if not failed:
            del reverse, diagonal  # for a wide layer each of these matrices is gigabytes
            return triangular_inverse(lower).flip(0, 1)
        damping = 10 * damping if damping else 1e-4
    raise TrialFailed(f"the Hessian ({len(hessian)} inputs) is not positive definite, even damped by {damping / 10:g}")


def triangular_inverse(lower: Tensor) -> Tensor:
    """The inverse of a lower triangular matrix, by strips of columns without the zeros above them."""
    n = len(lower)
    inverse = torch.zeros_like(lower)
    for a in range(0, n, STRIP):
        unit = torch.eye(n - a, min(STRIP, n - a), dtype=lower.dtype, device=lower.device)
        inverse[a:, a : a + STRIP] = torch.linalg.solve_triangular(lower[a:, a:], unit, upper=False)
    return inverse


@dataclass(frozen=True)
class Rounding:
    """What `solve_columns` gives back: Q and E (m, n), and ||E||^2 of each row (m,).

    Without P, R and beta the last is (w0 - q) H (w0 - q)T with the damped H: the row's proxy loss.
    """

    quantized: Tensor
    errors: Tensor
    loss: Tensor


def solve_columns(
    weight: Tensor,
    U: Tensor,
    quantize: Round,
    *,
    start_group: StartGroup | None = None,
    group_size: int = -1,
    block: int = 128,
    P: Tensor | None = None,
    R: Tensor | None = None,
    beta: float = 0.0,
    carry: Carry | None = None,
) -> Rounding:
    """Round the columns of `weight` (m, n) in order, each error compensated by the columns after it.

    `start_group` is called for each run of `group_size` columns (-1: for the whole row) before `quantize` is called for
    the first of them. The order of the columns is the caller's: give weight[:, order] with the factor of
    H[order][:, order], and undo it afterwards.

    P and R (n, n), strictly upper triangular, add w P[j] and (w0 - w) R[j] to the later columns, where w is column j
    just before it is rounded and w0 the original one (GPTAQ, ResComp). `beta` adds FOEM's first-order term: a column
    that is not the first of its block is pulled back before it is rounded, w -= beta (w - w0), and the error is
    ((w - q) - beta (w - w0)) / U[j, j].

    `block` columns are worked on at a time (a multiple of the group size where it can be). The result depends on it
    only for `beta` and `carry`: beyond the block P and R multiply carry(latent, rounded, j) in the place of w.
    Everything is computed in the dtype of `weight`, which is not modified.
    """
    solver = _Solver(weight, U, quantize, start_group, P, R, beta, carry)
    solver.set_widths(group_size, block)
    with torch.no_grad():
        solver.solve(0, weight.shape[1])
    return Rounding(solver.columns.T, solver.errors.T, solver.loss)


class _Solver:
    """The matrices of one solution, transposed so that a column is contiguous."""

    def __init__(
        self,
        weight: Tensor,
        U: Tensor,
        quantize: Round,
        start_group: StartGroup | None,
        P: Tensor | None,
        R: Tensor | None,
        beta: float,
        carry: Carry | None,
    ):
        self.columns = weight.T.clone(memory_format=torch.contiguous_format)
        self.errors = torch.empty_like(self.columns)
        self.loss = weight.new_zeros(len(weight))
        self.terms = [(U, self.errors, -1)]
        self.keeps_latent = P is not None or R is not None
        self.original = self.columns.clone() if beta or self.keeps_latent else self.columns
        if self.keeps_latent:
            self.latent, self.drift = torch.empty_like(self.columns), torch.empty_like(self.columns)
            more = ((P, self.latent, 1), (R, self.drift, 1))
            self.terms += [(factor, rows, sign) for factor, rows, sign in more if factor is not None]
        self.diagonal = U.diagonal().tolist()
        self.quantize, self.start_group, self.beta, self.carry = quantize, start_group, beta, carry
        self.first_of_block = 0
        self.threads = torch.get_num_threads()

    def set_widths(self, group_size: int, block: int) -> None:
        """Widths, falling, of the runs of columns that are solved one inside the other; the last is a panel's.

        A group is inside a block or a block inside a group, so that no group starts with columns out of date.
        """
        self.group = len(self.columns) if group_size == -1 else group_size
        self.block = block // self.group * self.group or block
        self.widths = sorted({self.group, self.block, min(PANEL, self.group, self.block)}, reverse=True)

    def solve(self, a: int, b: int, depth: int = 0) -> None:
        """Round columns a to b - 1, which have received all that the earlier ones have to give."""
        if depth == len(self.widths):
            self._panel(a, b)
            return
        width = self.widths[depth]
        if b - a > width:
            middle = a + width * -(-(b - a) // (2 * width))
            self.solve(a, middle, depth)
            for factor, rows, sign in self.terms:
                self.columns[middle:b].addmm_(factor[a:middle, middle:b].T, rows[a:middle], alpha=sign)
            self.solve(middle, b, depth)
            return
        if width == self.group and self.start_group is not None:
            with threads(self.threads):
                self.start_group(self.columns[a:b], a)
        if width == self.block:
            self._block(a, b, depth)
        else:
            self.solve(a, b, depth + 1)

    def _block(self, a: int, b: int, depth: int) -> None:
        self.first_of_block = a
        # Thousands of operations on single columns.
        with threads(1):
            self.solve(a, b, depth + 1)
            self.loss += self.errors[a:b].square().sum(0)
        if self.keeps_latent and self.carry is not None:
            self.latent[a:b] = self.carry(self.latent[a:b], self.columns[a:b], a)
            torch.sub(self.original[a:b], self.latent[a:b], out=self.drift[a:b])

    def _panel(self, a: int, b: int) -> None:
        for j in range(a, b):
            w, error = self.columns[j], self.errors[j]
            if self.beta and j > self.first_of_block:
                w.lerp_(self.original[j], self.beta)
            q = self.quantize(w, j)
            torch.sub(w, q, out=error)
            if self.beta:
                error.sub_(w - self.original[j], alpha=self.beta)
            error.div_(self.diagonal[j])
            if self.keeps_latent:
                self.latent[j] = w
                torch.sub(self.original[j], w, out=self.drift[j])
            for factor, rows, sign in self.terms:
                self.columns[j + 1 : b].addr_(factor[j, j + 1 : b], rows[j], alpha=sign)
            w.copy_(q)
