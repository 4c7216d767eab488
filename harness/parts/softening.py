"""Temperature in the probability domain: operators that soften a distribution when its logits are not known.

An operator maps a distribution p over V classes to a softer one, S_T(p), for a temperature T >= 1. Where both models'
logits are at hand, `soft_log_probabilities` computes it without leaving the log domain. The axioms are those of the
paper's abstract (paper key flouro2026sparse); operators other than `power` are our reading.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Operator = Literal["power", "mixing", "additive", "top_k"]
OPERATORS: tuple[Operator, ...] = ("power", "mixing", "additive", "top_k")
KEPT = 2
"""Classes that `top_k` keeps."""


def soften(p: Tensor, temperature: float, operator: Operator = "power", *, k: int = KEPT) -> Tensor:
    """S_T(p) for distributions p (..., V).

    `power`: p^(1/T), normalized, which is softmax(z / T); `mixing`: (1 - w) p + w / V with w = 1 - 1 / T; `additive`:
    (p + c) / (1 + c V) with c = T - 1; `top_k`: `power` on the k likeliest classes and zero elsewhere, which keeps
    neither the ranking nor the limit at large T and is here as the counterexample.
    """
    classes = p.shape[-1]
    if operator == "power":
        return torch.softmax(p.log() / temperature, -1)
    if operator == "top_k":
        kept, where = p.topk(min(k, classes), -1)
        return torch.zeros_like(p).scatter_(-1, where, torch.softmax(kept.log() / temperature, -1))
    share = _share(temperature, classes, operator)
    return (1 - share) * p + share / classes


def soft_log_probabilities(logits: Tensor, temperature: float, operator: Operator = "power") -> Tensor:
    """log S_T(softmax(logits)), (..., V), in float32. `top_k` is for a teacher: a student is softened by `power`."""
    if operator in ("power", "top_k"):
        return F.log_softmax(logits.float() / temperature, -1)
    plain, classes = F.log_softmax(logits.float(), -1), logits.shape[-1]
    share = _share(temperature, classes, operator)
    if share == 0:
        return plain
    return torch.logaddexp(plain + math.log1p(-share), torch.tensor(math.log(share / classes), device=plain.device))


def _share(temperature: float, classes: int, operator: Operator) -> float:
    """How much of the uniform distribution is mixed in."""
    if operator == "mixing":
        return 1 - 1 / temperature
    smoothing = (temperature - 1) * classes
    return smoothing / (1 + smoothing)


def axioms(operator: Operator, count: int, classes: int, generator: torch.Generator) -> dict[str, bool]:
    """Which axioms hold on `count` random distributions: the ranking of classes is kept, entropy does not fall with T,
    T = 1 is the identity, T -> infinity the uniform distribution, and a small change of p or T is a small one of S."""
    # Dirichlet(1); in float64 so that rounding does not decide an inequality.
    p = -torch.rand(count, classes, generator=generator, dtype=torch.float64).clamp_min(1e-12).log()
    p = p / p.sum(-1, keepdim=True)
    order = p.argsort(-1)
    soft = {t: soften(p, t, operator) for t in (1.0, 1.5, 2.0, 4.0, 8.0)}
    entropies = torch.stack([-(s * s.clamp_min(1e-300).log()).sum(-1) for s in soft.values()])
    moved = soften(0.999_999 * p + 1e-6 / classes, 2.000_001, operator)
    return {
        "ranking": all(bool((s.gather(-1, order).diff() > 0).all()) for s in soft.values()),
        "entropy": bool((entropies.diff(dim=0) >= -1e-12).all()),
        "identity": bool((soft[1.0] - p).abs().max() < 1e-9),
        "uniform limit": bool((soften(p, 1e9, operator) - 1 / classes).abs().max() < 1e-6),
        "continuity": bool((moved - soft[2.0]).abs().max() < 1e-3),
    }


def path_divergence(start: Tensor, end: Tensor, stages: int) -> Tensor:
    """Sum over k of KL(p_k || p_k+1) along the geodesic p_k ~ start^(1 - k/n) end^(k/n), n = `stages`.

    It falls as 1 / n: n times it goes to half of KL(start || end) + KL(end || start). Distributions are (..., V).
    """
    part = torch.linspace(0, 1, stages + 1, dtype=start.dtype).view(-1, *[1] * start.ndim)
    path = torch.log_softmax((1 - part) * start.log() + part * end.log(), -1)
    return (path[:-1].exp() * (path[:-1] - path[1:])).sum((0, -1))
