"""Singular value decompositions with what is always needed around them: float64, fixed signs, ranks, projections."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Svd(NamedTuple):
    """W = U diag(S) V^T: U (m, k), S (k,) falling, V (n, k); with `full`, U (m, m) and V (n, n)."""

    U: Tensor
    S: Tensor
    V: Tensor


def svd(weight: Tensor, *, full: bool = False) -> Svd:
    """The decomposition of matrices (..., m, n), in float64. Of each pair of singular vectors, the left one's largest
    entry is positive, so that the result does not depend on the library's choice of sign."""
    U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=full)
    k = S.shape[-1]
    sign = U.gather(-2, U.abs().argmax(-2, keepdim=True)).sign()
    pairs = sign[..., :k]
    V = Vh.mT.clone()
    V[..., :k] *= pairs
    return Svd(U * sign, S, V)


def split_rank(values: Tensor, alpha: float) -> int:
    """Of falling singular values, the (0-based) place of the first at which their sum exceeds the part `alpha` of the
    whole: how many come before it. 0 where no sum exceeds it, or all are 0."""
    total = values.sum()
    beyond = (values.cumsum(0) > alpha * total).nonzero()
    return int(beyond[0]) if len(beyond) and float(total) > 0 else 0


def project_out(matrix: Tensor, basis: Svd, rank: int) -> Tensor:
    """A matrix (m, n) without what it has in the leading `rank` x `rank` block, and on the diagonal, of the coordinates
    that a full decomposition's singular vectors span. In float64."""
    coordinates = basis.U.T @ matrix.double() @ basis.V
    coordinates.diagonal().zero_()
    coordinates[:rank, :rank] = 0
    return basis.U @ coordinates @ basis.V.T


def truncated(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best factors of a rank: left (m, r) and right (r, n), each with the square roots of the singular values."""
    U, S, V = svd(weight)
    root = S[:rank].sqrt()
    return U[:, :rank] * root, root[:, None] * V[:, :rank].T


def alignment(a: Tensor, b: Tensor, gamma: float) -> tuple[float, int]:
    """How far the singular vectors of two matrices pair up, over singular values beyond `gamma` times the largest:
    the sum of (u_a,i . u_b,j)(v_a,i . v_b,j), and the number of pairs that there could be."""
    (Ua, Sa, Va), (Ub, Sb, Vb) = svd(a), svd(b)
    first, second = (int((S[0] * gamma < S).sum()) for S in (Sa, Sb))
    products = (Ua[:, :first].T @ Ub[:, :second]) * (Va[:, :first].T @ Vb[:, :second])
    return float(products.sum()), min(first, second)
