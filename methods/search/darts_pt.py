"""DARTS-PT (Wang et al. 2021): on each edge the operation whose removal hurts the supernet most is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from harness import Batch, Claim, Fraction, Positive, SearchProblem, Solution, Weight, fit, method
from harness.search.space import Arch
from harness.tasks import cross_entropy
from harness.tracks.search import predictions
from harness.train import optimizers
from methods.search.ranking import shared, trained

PASSES = 2
"""Of a step: the weights' training batch and the choices' development batch."""


@method(
    track="search",
    paper="wang2021rethinking",
    claims=[
        Claim(
            "regret(of=loss)", "darts_pt(selection=argmax)", "search-vision", params={"selection": "perturbation"},
            paper="NAS-Bench-201, CIFAR-10: 54.30 -> 88.11 from the same supernets",
        )
    ],
)  # fmt: skip
def darts_pt(
    problem: SearchProblem,
    *,
    selection: Literal["perturbation", "argmax"] = "perturbation",
    finetune: Fraction = 0.1,
    retrain: Fraction = 0.5,
    alpha_lr: Positive = 3e-3,
    lr: Positive = 3e-3,
    weight_decay: Weight = 0.01,
) -> Solution:
    """A supernet of mixed operations (DARTS, first order), then gene by gene the choice that it can least do without.

    How much a choice is needed is the development loss with its weight set to zero and the others as they are; after
    each gene that is fixed, in random order, the supernet is trained on for a part `finetune` of its updates, split
    over the genes, at a tenth of the rate. `selection=argmax` takes DARTS's largest weight instead, after as many
    updates. The architecture is trained alone with a part `retrain` of the budget. A pass through the mixture counts as
    one, though it computes every operation.
    """
    genes = len(problem.space.genes)
    steps, alone = shared(problem, retrain, PASSES)
    later = round(finetune * steps / genes)
    mixed = Mixed(problem)
    train_mixed(problem, mixed, max(1, steps - later * genes), lr, alpha_lr, weight_decay)
    weights = {name: alpha.detach().softmax(0).tolist() for name, alpha in zip(mixed.genes, mixed.alphas, strict=True)}
    for gene in torch.randperm(genes, generator=problem.generator).tolist():
        needed = strengths(problem, mixed, gene) if selection == "perturbation" else mixed.alphas[gene].tolist()
        possible = [at for at in range(len(needed)) if feasible(problem, {**mixed.fixed, gene: at})]
        mixed.fixed[gene] = max(possible, key=lambda at: needed[at])
        if later:
            train_mixed(problem, mixed, later, lr / 10, alpha_lr, weight_decay)
    arch = tuple(mixed.fixed[gene] for gene in range(genes))
    found = trained(problem, arch, alone, lr=lr, weight_decay=weight_decay)
    found.arch = arch
    found.log |= {"predicted": likelihoods(problem, weights), "alphas": weights, "arch": problem.space.name(arch)}
    return found


class Mixed(nn.Module):
    """A supernet and the weights of its choices: logits `alphas`, or a choice where a gene is `fixed`."""

    def __init__(self, problem: SearchProblem):
        super().__init__()
        self.supernet, self.genes = problem.supernet, list(problem.space.genes)
        self.alphas = nn.ParameterList(
            nn.Parameter(1e-3 * torch.randn(len(choices), generator=problem.generator))
            for choices in problem.space.genes.values()
        )
        self.fixed: dict[int, int] = {}

    def mixture(self) -> list[Tensor]:
        """The weight of every choice of each gene."""
        return [
            nn.functional.one_hot(torch.tensor(self.fixed[gene]), len(alpha)).float()
            if gene in self.fixed
            else torch.softmax(alpha, 0)
            for gene, alpha in enumerate(self.alphas)
        ]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.supernet(inputs, self.mixture())


def train_mixed(
    problem: SearchProblem, mixed: Mixed, steps: int, lr: float, alpha_lr: float, weight_decay: float
) -> None:
    """Weights on training batches, choices on development batches, both in one step (Liu et al. 2019, first order)."""
    dev = problem.task.batches(problem.budget.batch, problem.seed(), problem.task.dev)
    train = problem.task.batches(problem.budget.batch, problem.seed())

    def loss(model: nn.Module, pair: tuple[Batch, Batch], generator: torch.Generator) -> dict[str, Tensor]:
        mixture = mixed.mixture()
        logits = mixed.supernet(pair[0].inputs, [weights.detach() for weights in mixture])
        frozen = {name: p.detach() for name, p in mixed.supernet.named_parameters()}
        answers = functional_call(mixed.supernet, frozen, (pair[1].inputs, mixture))
        return {"weights": cross_entropy(logits, pair[0].labels), "choices": cross_entropy(answers, pair[1].labels)}

    def both(named: dict[str, nn.Parameter]) -> Sequence[torch.optim.Optimizer]:
        alphas = [p for name, p in named.items() if name.startswith("alphas")]
        weights = {name: p for name, p in named.items() if not name.startswith("alphas")}
        adam = torch.optim.Adam(alphas, lr=alpha_lr, betas=(0.5, 0.999), weight_decay=1e-3)
        return [optimizers.adamw(lr, weight_decay)(weights), adam]

    fit(problem, model=mixed, optimizer=both, loss=loss, steps=steps, batches=lambda i: (train(i), dev(i)))


@torch.no_grad()
def strengths(problem: SearchProblem, mixed: Mixed, gene: int) -> list[float]:
    """The development loss without each choice of a gene, its weight zero and the others not rescaled.

    Batch norms use the statistics of each batch, as in the released code: running ones are of another mixture.
    """
    dev, size, found = problem.task.dev, problem.budget.batch, []
    for at in range(len(mixed.alphas[gene])):
        mixture = mixed.mixture()
        mixture[gene] = mixture[gene].index_fill(0, torch.tensor(at), 0.0)
        parts = zip(dev.inputs.split(size), dev.labels.split(size), strict=True)
        losses = [float(cross_entropy(mixed.supernet(x, mixture), y)) * len(y) for x, y in parts]
        found.append(sum(losses) / len(dev))
    return found


def feasible(problem: SearchProblem, fixed: dict[int, int]) -> bool:
    """Whether some architecture with these choices is within the limit: the one that is smallest elsewhere."""
    arch: Arch = tuple(fixed.get(gene, 0) for gene in range(len(problem.space.genes)))
    return problem.allowed(arch)


def likelihoods(problem: SearchProblem, weights: dict[str, list[float]]) -> dict[str, float]:
    """The ranking that the weights of the choices alone predict: each architecture's log probability."""
    scores = {}
    for arch in problem.draw(64):
        taken = torch.tensor([values[at] for values, at in zip(weights.values(), arch, strict=True)])
        scores[arch] = float(taken.log().sum())
    return predictions(problem.space, scores)
