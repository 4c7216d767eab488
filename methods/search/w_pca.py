"""W-PCA (2025): architectures are ranked before any training, by size times the rank of what they compute."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from harness import Claim, Count, Fraction, Positive, SearchProblem, Solution, Weight, method
from harness.search.space import Arch
from methods.search.ranking import chosen


@method(
    track="search",
    paper="wang2025wpca",
    claims=[
        Claim(
            "kendall_tau", "w_pca(score=v_pca)", "search-lm", params={"score": "w_pca"},
            paper="above V-PCA on FlexiBERT",
        ),
        Claim(
            "kendall_tau", "w_pca(score=numbers)", "search-lm", params={"score": "w_pca"},
            paper="above the number of parameters on FlexiBERT",
        ),
    ],
)  # fmt: skip
def w_pca(
    problem: SearchProblem,
    *,
    score: Literal["w_pca", "v_pca", "numbers"] = "w_pca",
    energy: Fraction = 0.99,
    inits: Count = 3,
    samples: Count = 32,
    candidates: Count = 32,
    lr: Positive = 3e-3,
    weight_decay: Weight = 0.01,
) -> Solution:
    """Parameters times the mean number of principal components that explain a part `energy` of the pre-activations.

    One batch of `samples` goes through each candidate with fresh weights, `inits` times; what comes out of the layers
    before a nonlinearity (of a Transformer the first of the feed-forward part) is decomposed. The best is trained with
    the whole budget; there are fewer candidates where that leaves too few forward passes. `score`: the product, the
    components alone, or the parameters alone.
    """
    space, inputs = problem.space, problem.task.train.inputs[:samples]
    scores: dict[Arch, float] = {}
    # What the budget grants forward and not backward is there for ranking; training needs the rest.
    granted = problem.budget.granted
    spare = (granted.forward - granted.backward) // (inits * len(inputs))
    for arch in problem.draw(max(1, min(candidates, spare))):
        components = 1.0
        if score != "numbers":
            counts = [mean_components(problem, problem.fresh(arch), inputs, energy) for _ in range(inits)]
            components = sum(counts) / inits
        scores[arch] = components * (1 if score == "v_pca" else space.numbers(arch))
    return chosen(problem, scores, problem.budget.steps(), lr=lr, weight_decay=weight_decay)


def mean_components(problem: SearchProblem, model: nn.Module, inputs: Tensor, energy: float) -> float:
    """The mean over layers of the principal components of their pre-activations on a batch; 0 without such a layer."""
    found: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda module, args, output: found.append(output.detach()))
        for module in problem.space.hidden(model)
    ]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    rows = [x.movedim(1, -1) if x.ndim == 4 else x for x in found]
    return sum(components(x.flatten(0, -2), energy) for x in rows) / max(1, len(rows))


def components(x: Tensor, energy: float) -> int:
    """The fewest principal components of samples x (N, D) whose share of the variance is above `energy`."""
    centred = x.double() - x.double().mean(0)
    wide = centred.shape[1] > centred.shape[0]
    # The smaller of the two products has the same eigenvalues, but for zeros.
    square = centred @ centred.T if wide else centred.T @ centred
    values = torch.linalg.eigvalsh(square).flip(0).clamp_min(0)
    if not float(values.sum()):
        return 0
    share = values.cumsum(0) / values.sum()
    # Strictly above, as in the released code; the tolerance keeps rounding from deciding where they are equal.
    return min(int((share <= energy + 1e-9).sum()) + 1, len(values))
