"""SPECTRA: soft clipping of the singular values of updates (Jiang et al. 2026)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness import Claim, Count, Fraction, Positive, Solution, TrainProblem, Weight, fit, method
from harness.parts.linalg import soft_spectral_clip
from harness.train import optimizers
from harness.train.loop import MakeOptimizer
from harness.train.schedules import cosine

CLAIMS = [
    Claim("weight_norm(norm=spectral)", "adamw", suite, paper="models trained with SPECTRA have smaller weight norms")
    for suite in ("train-vision", "train-lm")
] + [Claim("cross_entropy", "adamw", "train-lm", paper="uniformly better loss in LLM pre-training, 160M to 1.5B")]


class Spectra:
    """A base optimizer whose updates, and gradients if `pre` is given, are clipped softly in their singular values.

    The base makes its step; the update U that it took, without the decoupled decay, is recovered from the weights and
    taken again as alpha H_c(U), alpha = sqrt(max(1, m / n)) for a matrix (m, n). While the rate warms up the limit is
    c lr / lr_t, so that their product stays; `clip` bounds the norm of all gradients, after `pre`.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        *,
        limit: float = 10.0,
        iterations: int = 10,
        warmup: int = 0,
        pre: float | None = None,
        clip: float | None = None,
    ):
        self.base, self.limit, self.iterations, self.warmup = base, limit, iterations, warmup
        self.pre, self.clip, self.steps = pre, clip, 0

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.base.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.base.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"base": self.base.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.base.load_state_dict(state["base"])
        self.steps = state["steps"]

    @torch.no_grad()
    def step(self) -> None:
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if self.pre is not None:
            for parameter in parameters:
                parameter.grad = clipped(parameter.grad, self.pre, self.iterations)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip)
        before = {id(parameter): parameter.clone() for parameter in parameters}
        self.base.step()
        for group in self.param_groups:
            lr, decay = group["lr"], group.get("weight_decay", 0.0)
            limit = self.limit * group.get("initial_lr", lr) / lr if lr and self.steps < self.warmup else self.limit
            for parameter in group["params"]:
                if lr and parameter.grad is not None:
                    old = before[id(parameter)]
                    update = (old - parameter) / lr - decay * old
                    step = clipped(update, limit, self.iterations)
                    parameter.copy_((1 - lr * decay) * old - lr * _wide(parameter) * step)
        self.steps += 1


def clipped(value: Tensor, limit: float, iterations: int = 10) -> Tensor:
    """H_c of a matrix, or of a convolution as (outputs, inputs x kernel); a vector longer than c is shortened."""
    if value.ndim > 1:
        return soft_spectral_clip(value.flatten(1), limit, iterations=iterations).view_as(value)
    norm = value.norm()
    return torch.where(norm <= limit, value, value / (1 + (norm / limit) ** 2).sqrt())


def _wide(parameter: Tensor) -> float:
    """alpha of a parameter: 1 for a vector, sqrt(max(1, m / n)) for a matrix (m, n)."""
    if parameter.ndim < 2:
        return 1.0
    m, n = parameter.flatten(1).shape
    return max(1.0, m / n) ** 0.5


@method(track="train", paper="jiang2026spectral", claims=CLAIMS)
def spectra(
    problem: TrainProblem,
    *,
    base: Literal["adamw", "sgd"] = "adamw",
    limit: Positive = 10.0,
    pre: Positive | None = None,
    iterations: Count = 10,
    clip: Positive = 0.5,
    lr: Positive = 1e-3,
    weight_decay: Weight = 0.1,
    beta1: Fraction = 0.8,
    beta2: Fraction = 0.999,
) -> Solution:
    """Updates of a base optimizer whose singular values s become s / sqrt(1 + s^2 / limit^2).

    `pre` clips gradients likewise, before the bound `clip` on the norm of all of them; the paper does not advise both.
    Every parameter's update is clipped, vectors by their norm. The decay of the base must be decoupled: with `sgd` it
    is left to this method.
    """
    bases: dict[str, MakeOptimizer] = {
        "adamw": optimizers.adamw(lr, weight_decay, (beta1, beta2)),
        "sgd": optimizers.sgd(lr, 0.0, momentum=beta1),
    }
    steps = problem.budget.steps()
    options: dict[str, Any] = {
        "limit": limit,
        "iterations": iterations,
        "warmup": steps // 20,
        "pre": pre,
        "clip": clip,
    }

    def optimizer(named: dict[str, nn.Parameter]) -> list[Any]:
        return [Spectra(bases[base](named), **options)]  # type: ignore[arg-type]

    return fit(problem, optimizer=optimizer, schedule=cosine(warmup=steps // 20), clip=None)
