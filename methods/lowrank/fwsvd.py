"""FWSVD: Hsu et al., "Language model compression with weighted low-rank factorization" (2022)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from harness import (
    BadInput,
    Claim,
    CompressProblem,
    LayerProblem,
    LowRank,
    PackedWeight,
    Solution,
    compress_layers,
    method,
)
from harness.compress import view
from harness.compress.fisher import compressed_layers, empirical_fisher
from harness.compress.svd import lowrank, rank_for_ratio
from methods.lowrank.svd import Ratio

Axis = Literal["in", "out"]


@method(
    track="compress",
    paper="hsu2022fwsvd",
    claims=[
        Claim(
            metric="perplexity",
            than="svd",
            suite="lowrank-lm",
            params={"ratio": 0.6},
            paper="BERT-base on GLUE, a third of the rank: task scores stay much closer to the original than with SVD",
        )
    ],
)
def fwsvd(problem: CompressProblem, *, ratio: Ratio = 0.6, axis: Axis = "in") -> Solution:
    """Low-rank factors that spare the weights on which the task's loss depends, by Fisher-weighted SVD.

    Each weight's empirical Fisher information is the mean over the calibration samples of its squared gradient, from
    the labels as they are and in evaluation mode (equation 6). Summed over outputs it gives every input an importance
    (the paper's rows, since it writes Z = X W), and the factors minimise the error weighted by it (equations 7 and 8);
    `axis="out"` sums over inputs instead, as some re-implementations do. An input without importance counts as
    1e-6 of the mean. Storage and layers that stay dense are as in `svd`. The paper's optional fine-tuning of the
    factors is left out. Raises BadInput for a problem without a loss.
    """
    if ratio == 1:
        return compress_layers(problem, lambda layer: layer.dense())
    importance = _importance(problem, axis)

    def factorize(layer: LayerProblem) -> PackedWeight:
        rank = rank_for_ratio(layer.weight.shape, ratio)
        if rank is None:
            return layer.dense()
        a, b = lowrank(layer.weight, rank, **{f"{axis}_weight": importance[layer.name]})
        return LowRank(a.to(layer.dtype), b.to(layer.dtype))

    return compress_layers(problem, factorize)


def _importance(problem: CompressProblem, axis: Axis) -> dict[str, Tensor]:
    """The Fisher information of each layer's inputs (n,) or outputs (m,), by the name of its `LayerProblem`."""
    if problem.loss is None:
        raise BadInput(
            f"fwsvd needs a loss to differentiate; model {problem.handle.name} ({problem.handle.kind}) has none"
        )
    layers = compressed_layers(problem)

    def summed(parameter: str, squares: Tensor) -> Tensor:
        layer = layers[parameter.removesuffix(".weight")]
        squares = squares.T if type(layer).__name__ == "Conv1D" else squares.flatten(1)
        return squares.unflatten(0, (view.groups(layer), -1)).sum(1 if axis == "in" else 2)

    batches = ({key: value.to(problem.device) for key, value in batch.items()} for batch in problem.calibration)
    names = [f"{name}.weight" for name in layers]
    fisher = empirical_fisher(problem.model, problem.loss, batches, names, reduce=summed)
    found = {}
    for name in layers:
        parts = fisher[f"{name}.weight"]
        found |= {name: parts[0]} if len(parts) == 1 else {f"{name}[{i}]": part for i, part in enumerate(parts)}
    return found
