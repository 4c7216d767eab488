"""Convex functions K for Lion-K: their value, a subgradient, and their conjugate.

Where K is a norm its conjugate is 0 inside the unit ball of the dual norm and infinite outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.parts.linalg import polar

Name = Literal["l1", "l2", "lp", "group", "nuclear", "huber", "sqrt", "quad"]
EDGE = 1 + 1e-9
"""A point is inside a ball up to this radius: sums are rounded."""


@dataclass(frozen=True)
class Convex:
    """K, one of its subgradients, and K*, the conjugate; `dual` is the dual norm where K is a norm."""

    value: Callable[[Tensor], Tensor]
    subgradient: Callable[[Tensor], Tensor]
    conjugate: Callable[[Tensor], Tensor]
    dual: Callable[[Tensor], Tensor] | None = None


def convex(name: Name, *, p: float = 3.0, edge: float = 1e-3) -> Convex:
    """A function by its name: `lp` bounds the p-norm of the weights, `edge` rounds the corner of `huber` and `sqrt`."""
    if name == "huber":
        return Convex(
            lambda u: torch.where(u.abs() <= edge, u.square() / (2 * edge), u.abs() - edge / 2).sum(),
            lambda u: (u / edge).clamp(-1, 1),
            lambda y: _inside(y.abs().max(), edge / 2 * y.square().sum()),
        )
    if name == "sqrt":
        return Convex(
            lambda u: (u.square() + edge**2).sqrt().sum(),
            lambda u: u / (u.square() + edge**2).sqrt(),
            lambda y: _inside(y.abs().max(), -edge * (1 - y.square()).clamp(min=0).sqrt().sum()),
        )
    if name == "quad":
        return Convex(lambda u: u.square().sum() / 2, lambda u: u, lambda y: y.square().sum() / 2)
    value, subgradient, dual = {
        "l1": (lambda u: u.abs().sum(), torch.sign, lambda y: y.abs().max()),
        "l2": (torch.linalg.vector_norm, lambda u: _over(u, u.norm()), torch.linalg.vector_norm),
        "lp": (lambda u: u.norm(p / (p - 1)), lambda u: _power(u, p / (p - 1)), lambda y: y.norm(p)),
        "group": (
            lambda u: _rows(u).norm(dim=1).sum(),
            lambda u: _over(_rows(u), _rows(u).norm(dim=1, keepdim=True)).view_as(u),
            lambda y: _rows(y).norm(dim=1).max(),
        ),
        "nuclear": (
            lambda u: torch.linalg.matrix_norm(_rows(u), "nuc"),
            lambda u: polar(_rows(u)).view_as(u),
            lambda y: torch.linalg.matrix_norm(_rows(y), 2),
        ),
    }[name]
    return Convex(value, subgradient, lambda y: _inside(dual(y), torch.zeros((), dtype=y.dtype)), dual)


def _inside(norm: Tensor, value: Tensor) -> Tensor:
    return torch.where(norm <= EDGE, value, torch.inf)


def _rows(u: Tensor) -> Tensor:
    """A matrix as it is, a convolution (outputs, inputs x kernel), a vector as one row."""
    return u.flatten(1) if u.ndim > 1 else u.view(1, -1)


def _over(u: Tensor, norm: Tensor) -> Tensor:
    """u / norm, and 0 where the norm is."""
    return torch.where(norm > 0, u / norm.clamp(min=torch.finfo(u.dtype).tiny), 0)


def _power(u: Tensor, q: float) -> Tensor:
    """The gradient of the q-norm."""
    return u.sign() * _over(u, u.norm(q)).abs() ** (q - 1)
