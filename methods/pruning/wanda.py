"""Wanda: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models" (2023)."""

from __future__ import annotations

from harness import Claim, Fraction, LayerProblem, PackedWeight, method
from harness.compress.statistics import activations
from methods.pruning.masks import Pattern, prune


@method(
    track="compress",
    paper="sun2023wanda",
    claims=[
        Claim(
            metric="perplexity(dataset=wikitext2)",
            than="magnitude",
            suite="prune-lm",
            params={"sparsity": 0.5, "pattern": "unstructured"},
            paper="LLaMA-7B, WikiText-2, 50% unstructured: better than magnitude without retraining",
        ),
        Claim(
            metric="perplexity(dataset=wikitext2)",
            than="magnitude",
            suite="prune-lm",
            params={"sparsity": 0.5, "pattern": "2:4"},
            paper="LLaMA-7B, WikiText-2, 2:4: better than magnitude without retraining",
        ),
    ],
)
def wanda(layer: LayerProblem, *, sparsity: Fraction = 0.5, pattern: Pattern = "unstructured") -> PackedWeight:
    """Weights whose size times the norm of their input is smallest in their row become zero.

    Score S_ij = |W_ij| * ||X_j||_2 over the calibration tokens (equation 1), compared within each output row, of which
    exactly round(sparsity * n) weights go; with an N:M pattern, within every M consecutive inputs. No weight is
    updated. The inputs are those of the compressed prefix, within a block as well (the released code updates them once
    a block). Every layer is pruned, the output projections too. Raises BadInput as `magnitude` does.
    """
    if sparsity == 0:
        return layer.dense()
    norm = layer.statistic("activations", activations).l2
    return prune(layer, layer.weight.abs() * norm, sparsity=sparsity, pattern=pattern, unit="row")
