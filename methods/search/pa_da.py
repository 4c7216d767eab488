"""PA&DA (Lu et al. 2023): paths and samples of a supernet's training drawn in proportion to their gradients' norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness import Batch, Claim, Count, Fraction, Positive, SearchProblem, Solution, Weight, fit, method
from harness.search.space import Arch
from harness.tasks import per_sample
from harness.train import optimizers
from methods.search.ranking import chosen, rank, shared


@method(
    track="search",
    paper="lu2023pada",
    claims=[Claim("kendall_tau", "spos", "search-vision", paper="higher ranking consistency than uniform sampling")],
)
def pa_da(
    problem: SearchProblem,
    *,
    paths: bool = True,
    data: bool = True,
    unbiased: bool = False,
    rounds: Count = 10,
    candidates: Count = 64,
    retrain: Fraction = 0.5,
    lr: Positive = 3e-3,
    weight_decay: Weight = 0.01,
) -> Solution:
    """A single-path supernet whose paths and samples are drawn in proportion to gradient norms, annealed from uniform.

    Training goes in `rounds` (the paper's epochs); in round e of E both distributions are tau times the measured norms'
    plus (1 - tau) times the uniform, tau = e / E. A choice's norm is the mean over its own parameters, each gene with a
    distribution of its own; a sample's is the bound ||softmax(z) - onehot(y)||. The released code, and the default, do
    not weigh the loss by the inverse probabilities; `unbiased` does, for samples. `paths` and `data` switch each off.
    """
    steps, alone = shared(problem, retrain)
    stops = [steps * (place + 1) // rounds for place in range(rounds)]
    sampler = Sampler(problem)
    for place, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
        share = place / rounds
        sampler.start(share if paths else 0.0, share if data else 0.0)
        if stop > start:
            train_round(problem, sampler, start, stop, steps, unbiased, lr, weight_decay)
    scores = rank(problem, problem.draw(candidates), alone)
    found = chosen(problem, scores, alone, lr=lr, weight_decay=weight_decay)
    found.log["path_probabilities"] = [p.tolist() for p in sampler.path_probabilities]
    return found


def train_round(
    problem: SearchProblem, sampler: Sampler, start: int, stop: int, total: int, unbiased: bool, lr: float, decay: float
) -> None:
    """Updates `start` to `stop` of `total`, under the sampler's present distributions; the rate falls linearly."""
    size = min(problem.budget.batch, len(problem.task.train))
    rows = sampler.rows((stop - start) * size).view(-1, size)
    likely = sampler.data_probabilities

    def loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        arch = sampler.path()
        logits = problem.task.logits(problem.subnet(arch), batch.inputs)
        sampler.saw_data(batch, logits.detach())
        losses = per_sample(logits, batch.labels)
        return (losses / (likely[batch.rows] * len(likely)) if unbiased else losses).mean()

    def observed(named: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
        made = optimizers.adamw(lr, decay)(named)
        made.register_step_pre_hook(lambda *_: sampler.saw_path())
        return made

    fit(
        problem, model=problem.supernet, optimizer=observed, loss=loss, steps=stop - start, clip=5.0,
        batches=lambda i: problem.task.train.take(rows[i]), schedule=lambda step, _: 1 - (start + step) / total,
    )  # fmt: skip


class Sampler:
    """The two distributions of a round, and the norms from which those of the next are made."""

    def __init__(self, problem: SearchProblem):
        self.problem = problem
        self.choices = list(problem.space.genes.items())
        self.path_norms = [torch.zeros(len(choices)) for _, choices in self.choices]
        samples = len(problem.task.train)
        self.data_norms, self.seen = torch.zeros(samples), torch.zeros(samples)
        self.taken: Arch = ()
        self.start(0.0, 0.0)

    def start(self, path_share: float, data_share: float) -> None:
        """The distributions of the next round, from the norms of the last, which are forgotten."""
        self.path_probabilities = [annealed(norms, path_share) for norms in self.path_norms]
        self.data_probabilities = annealed(self.data_norms / self.seen.clamp_min(1), data_share)
        for norms in (*self.path_norms, self.data_norms, self.seen):
            norms.zero_()

    def path(self) -> Arch:
        """An architecture, each gene drawn on its own."""
        draw = [torch.multinomial(p, 1, generator=self.problem.generator) for p in self.path_probabilities]
        self.taken = tuple(int(at) for at in draw)
        return self.taken

    def rows(self, count: int) -> Tensor:
        """Training samples for one round, with replacement."""
        return torch.multinomial(self.data_probabilities, count, replacement=True, generator=self.problem.generator)

    def saw_data(self, batch: Batch, logits: Tensor) -> None:
        """Add up the bound on the norm of each sample's gradient."""
        self.data_norms.index_add_(0, batch.rows, gradient_bound(logits, batch.labels))
        self.seen.index_add_(0, batch.rows, torch.ones(len(batch.rows)))

    def saw_path(self) -> None:
        """Before an update: of each choice taken, half of its running norm and half of the present one."""
        space, supernet = self.problem.space, self.problem.supernet
        for (gene, choices), norms, at in zip(self.choices, self.path_norms, self.taken, strict=True):
            gradients = [p.grad.norm() for p in space.parts(supernet, gene, choices[at]) if p.grad is not None]
            if gradients:
                norm = torch.stack(gradients).mean()
                norms[at] = (norms[at] + norm) / 2 if norms[at] else norm


def annealed(norms: Tensor, share: float) -> Tensor:
    """share * norms / their sum + (1 - share) / their number; uniform while all are zero."""
    uniform = torch.full_like(norms, 1 / len(norms))
    total = norms.sum()
    return uniform if not float(total) else share * norms / total + (1 - share) * uniform


def gradient_bound(logits: Tensor, labels: Tensor) -> Tensor:
    """The norm of each sample's gradient in its logits, ||softmax(z) - onehot(y)||: (N,); of a text the mean."""
    errors = torch.softmax(logits.float(), -1) - nn.functional.one_hot(labels, logits.shape[-1])
    norms = errors.norm(dim=-1)
    return norms.mean(1) if norms.ndim > 1 else norms
