"""RMM: Alipour and Mohammadi Amiri, "Towards Reversible Model Merging For Low-rank Weights" (2025)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn

from harness import Claim, Count, MergeProblem, Range, Solution, method
from harness.parts.singular import svd
from methods.merging.lowrank import Factors, factored, restored


class Basis(NamedTuple):
    """The r-vectors of n tasks at each of m positions: their mean (m, r), a basis (m, r, p) of what is left, and the
    coefficients (m, p, n)."""

    mean: Tensor
    basis: Tensor
    coefficients: Tensor

    @classmethod
    def of(cls, vectors: Tensor, components: int) -> Basis:
        """The best basis (m, r, p) for vectors (m, r, n): the leading left singular vectors of their differences from
        the mean (Eckart and Young)."""
        mean = vectors.mean(-1)
        centred = vectors - mean[..., None]
        basis = svd(centred).U[..., :components].to(vectors.dtype)
        return cls(mean, basis, basis.mT @ centred)

    def revert(self, task: int) -> Tensor:
        """(m, r): the vectors of one task."""
        return self.mean + (self.basis @ self.coefficients[..., task, None])[..., 0]


@method(
    track="merge",
    paper="alipour2025rmm",
    claims=[
        Claim(
            metric="accuracy",
            than=than,
            suite="merge-vision",
            params={"rank": 16, "components": 2},
            paper="keeps far more of each task's performance than conventional merging of low-rank weights, abstract",
        )
        for than in ("task_arithmetic", "ties", "truncated_experts(rank=8)")
    ],
)
def rmm(problem: MergeProblem, *, rank: Count = 16, components: Annotated[int, Range(0, None)] = 2) -> Solution:
    """All experts are kept, as a mean and a small basis from which each is rebuilt.

    Each expert's change to a matrix is cut to A B of `rank` by its singular values, which also gives all of them one
    gauge (A with the square roots of the singular values, signs fixed; the gauge is ours). Of the n vectors of length r
    at one row of A, or one column of B, their mean is kept, `components` principal directions, and n coefficients for
    each: (p (r + n) + r) / (r n) of the numbers of n adapters. Other tensors (biases, norms) keep each expert's own.
    The base is stored too.
    """
    experts = [(expert.task, factored(expert.state, problem.based(), rank)) for expert in problem.experts]
    names = list(experts[0][1].left)
    bases: dict[str, tuple[Basis, Basis]] = {}
    for name in names:
        rows = torch.stack([factors.left[name] for _, factors in experts], -1)
        columns = torch.stack([factors.right[name].T for _, factors in experts], -1)
        bases[name] = Basis.of(rows, components), Basis.of(columns, components)
    places = {task: at for at, (task, _) in enumerate(experts)}
    rest = {task: factors.rest for task, factors in experts}

    def model(task: str) -> nn.Module:
        at = places[task]
        left = {name: rows.revert(at) for name, (rows, _) in bases.items()}
        right = {name: columns.revert(at).T for name, (_, columns) in bases.items()}
        return problem.load(restored(problem.based(), Factors(left, right, rest[task])))

    return Solution(model=model, stored=_stored(problem.based(), bases, rest))


def _stored(
    base: Mapping[str, Tensor], bases: Mapping[str, tuple[Basis, Basis]], rest: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    kept = {f"base.{name}": tensor for name, tensor in base.items()}
    for name, pair in bases.items():
        for side, one in zip(("left", "right"), pair, strict=True):
            kept |= {f"{name}.{side}.{part}": tensor for part, tensor in one._asdict().items()}
    return kept | {f"{task}.{name}": tensor for task, tensors in rest.items() for name, tensor in tensors.items()}
