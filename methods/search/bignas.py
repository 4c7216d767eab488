"""BigNAS (Yu et al. 2020): one set of weights so good that every slice of it can be used as it is."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import Batch, Claim, Count, Fraction, Positive, SearchProblem, Solution, Weight, fit, method
from harness.search.space import Arch
from harness.tasks import cross_entropy
from harness.train import optimizers
from methods.search.ranking import chosen, rank, shared


@method(
    track="search",
    paper="yu2020bignas",
    claims=[
        Claim("cross_entropy", "spos(retrain=0)", "search-vision", paper="above one-shot models without retraining"),
    ],
)
def bignas(
    problem: SearchProblem,
    *,
    children: Count = 2,
    distil: bool = True,
    tail: Fraction = 0.05,
    zero_residuals: bool = True,
    retrain: Fraction = 0.0,
    candidates: Count = 64,
    lr: Positive = 3e-3,
    weight_decay: Weight = 0.01,
) -> Solution:
    """The sandwich rule with distillation in place: largest, smallest and random architectures in every update.

    The largest learns the labels, the others its answers under the same weights (`distil`; else the labels); gradients
    are summed. The rate falls exponentially to a constant `tail`, residual blocks start as identities, and the batch
    norms of what is ranked and kept are estimated anew. Weight decay is applied once an update. `children` are the
    random architectures: an update takes children + 2 passes. Candidates are ranked once, without the paper's
    coarse-to-fine grid, which these small spaces do not need.
    """
    paths = children + 2
    steps, alone = shared(problem, retrain, paths)
    if zero_residuals:
        start_as_identity(problem.supernet)

    def loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        archs = [problem.space.smallest, *(problem.space.draw(problem.generator) for _ in range(children))]
        return sandwich(problem, batch, archs, distil)

    fit(
        problem, model=problem.supernet, optimizer=optimizers.adamw(lr, weight_decay), loss=loss, steps=steps,
        passes=paths, schedule=lambda step, total: max(tail, math.exp(math.log(tail or 1e-4) * step / (0.8 * total))),
    )  # fmt: skip
    scores = rank(problem, problem.draw(candidates), alone)
    return chosen(problem, scores, alone, lr=lr, weight_decay=weight_decay)


def sandwich(problem: SearchProblem, batch: Batch, archs: list[Arch], distil: bool) -> Tensor:
    """The loss of the largest architecture on the labels, and of others on its answers; no gradient goes back into
    those answers."""

    def answer(arch: Arch) -> Tensor:
        return problem.task.logits(problem.subnet(arch), batch.inputs)

    largest = answer(problem.space.largest)
    total, soft = cross_entropy(largest, batch.labels), torch.softmax(largest.detach(), -1)
    for arch in archs:
        logits = answer(arch)
        if distil:
            total = total + F.cross_entropy(logits.flatten(0, -2), soft.flatten(0, -2))
        else:
            total = total + cross_entropy(logits, batch.labels)
    return total


@torch.no_grad()
def start_as_identity(network: nn.Module) -> None:
    """The gain of the batch norm that ends each residual block is zero."""
    for module in network.modules():
        if getattr(module, "residual", False):
            module.norm.weight.zero_()
