"""AWQ: Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration" (2023)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from harness import (
    Bits,
    Claim,
    CompressProblem,
    Count,
    GroupSize,
    LayerProblem,
    PackedWeight,
    Solution,
    compress_layers,
    method,
    walk_blocks,
)
from harness.compress import Block, view
from harness.compress.fold import fold_scale
from harness.compress.states import Call, first
from harness.compress.statistics import activations, hessian
from harness.models.families import Fold, is_layer
from methods.quantization.grids import fit, group_width
from methods.quantization.rtn import rtn

UNCLIPPED = {"q_proj", "k_proj", "q", "k", "query", "key", "query_key_value", "c_attn"}
"""Last parts of the names of layers that make queries and keys, whose products clipping would distort."""
CLIP_STEPS = 10
"""Thresholds that the clip search tries: 100%, 95%, ... 55% of the largest magnitude of a group."""
CHUNK = 2**21
"""Weights that the clip search works on at a time."""

Score = Callable[[Mapping[str, Tensor]], float]
"""How much the output of a module changes, as a mean square, when its layers have these weights."""


@method(
    track="compress",
    paper="lin2023awq",
    claims=[
        Claim(
            metric="perplexity(dataset=wikitext2)",
            than="rtn(clip=minmax)",
            suite="ptq-lm",
            params={"bits": 3},
            paper="Llama-2-7B, WikiText-2, 3 bits in groups of 128: RTN 6.66, AWQ 6.24 (fp16 5.47)",
        ),
        Claim(
            metric="perplexity(dataset=wikitext2)",
            than="rtn(clip=minmax)",
            suite="ptq-lm",
            params={"bits": 4},
            paper="Llama-2-7B, WikiText-2, 4 bits in groups of 128: better than RTN",
        ),
        Claim(
            metric="perplexity(dataset=wikitext2)",
            than="gptq",
            suite="ptq-lm",
            params={"bits": 3},
            paper="Llama-2-7B, WikiText-2, 3 bits in groups of 128: AWQ 6.24 (fp16 5.47), better than GPTQ",
        ),
    ],
)
def awq(
    problem: CompressProblem,
    *,
    bits: Bits = 4,
    group_size: GroupSize = 128,
    grid: Count = 20,
    clip_search: bool = True,
    search_samples: Count = 128,
) -> Solution:
    """Inputs with large activations are scaled up before rounding, and the scale is folded into the operation before.

    For each pair of the family's fold table, one scale per input channel, s = mean|x|^r / sqrt(max * min) with r = i /
    `grid`, i < `grid`, is chosen so that the output of the module behind it changes least when its weights are rounded
    (equations 4 and 5), and folded in. Then, for each row and group of every layer but those of queries and keys, the
    weights are clipped at the threshold that changes the group's product with at most 512 sampled tokens least.
    Rounding is that of `rtn`, asymmetric; `grid=1, clip_search=false` is `rtn`. 16 bits keep the model as it is.

    Both searches start from the block's own weights, on the inputs of the compressed prefix (the released code takes
    those of the uncompressed model). A module that is one layer is compared on all calibration tokens, through their
    second moments; attention and MLP on the first `search_samples` samples (the paper's 128 are all), up to a whole
    batch. A norm is folded as the checkpoint will store it. Convolutional networks and models of no known family have
    no folds and get the clip search alone. Raises BadInput for a group size that does not divide a layer's inputs.
    """
    if bits == 16:
        return compress_layers(problem, lambda layer: layer.dense())
    solution = Solution({})
    for block in walk_blocks(problem):
        prefix = f"{block.name}." if block.name else ""
        for fold in _folds(problem, block, prefix):
            fed = _layers(block)[prefix + fold.layers[0]]
            width = group_width(fed, group_size)
            score = _layer_score(block, fold, fed) if is_layer(block.module.get_submodule(fold.output)) else None
            scale, log = search_scale(
                {name: view.matrix(block.module.get_submodule(name)) for name in fold.layers},
                activations(fed).mean_abs,
                score or _module_score(block, fold, search_samples),
                lambda weight, width=width: _rounded(weight.unflatten(1, (-1, width)), bits).flatten(1),
                grid,
            )
            changed = fold_scale(block.module, fold, scale, dtype=problem.handle.dtype)
            solution.changed |= {prefix + name: tensor for name, tensor in changed.items()}
            solution.log[f"{prefix}{fold.source} fold"] = log
        # All layers are clipped before any is replaced: both searches look at the block as it was trained.
        packed = {name: _quantize(layer, bits, group_size, clip_search) for name, layer in _layers(block).items()}
        for name, weight in packed.items():
            block.set(name, weight)
        solution.packed |= block.packed
    return solution


def search_scale(
    weights: Mapping[str, Tensor],
    magnitude: Tensor,
    score: Score,
    rounded: Callable[[Tensor], Tensor],
    grid: int,
) -> tuple[Tensor, dict[str, float]]:
    """The scale (n,) of the inputs of `weights`, each (m, n), at which rounding them changes the output least.

    `magnitude` (n,) is the mean |x| of the inputs. Also the exponent r that was chosen, its loss, and that of r = 0,
    which is plain rounding.
    """
    best, losses = torch.ones_like(magnitude), []
    for i in range(grid):
        scale = magnitude.pow(i / grid).clamp(min=1e-4)
        scale = scale / (scale.max() * scale.min()).sqrt()
        losses.append(score({name: rounded(weight * scale) / scale for name, weight in weights.items()}))
        if losses[-1] < min(losses[:-1], default=float("inf")):
            best = scale
    chosen = losses.index(min(losses))
    return best, {"ratio": chosen / grid, "loss": losses[chosen], "rtn_loss": losses[0]}


def clip_weight(weight: Tensor, sample: Tensor, *, bits: int, width: int) -> Tensor:
    """`weight` (m, n) clipped in each row and group of `width` inputs, given sampled inputs (tokens, n).

    The threshold is the (1 - i/20)-th part of the group's largest magnitude, i < 10, whose rounded weights give the
    product closest, in squared error, to that of the weights as they were.
    """
    x = sample.unflatten(1, (-1, width)).transpose(0, 1)
    # |x d| depends on x only through xT x, which a triangular factor has in fewer rows.
    root = torch.linalg.qr(x, mode="r").R if x.shape[1] > width else x
    parts = weight.unflatten(1, (-1, width)).split(max(1, CHUNK // weight.shape[1]))
    return torch.cat([_clip_rows(part.transpose(0, 1), root, bits).transpose(0, 1) for part in parts]).flatten(1)


def _clip_rows(groups: Tensor, root: Tensor, bits: int) -> Tensor:
    """`groups` (G, m, width) and `root` (G, tokens, width) to the clipped groups."""
    largest = groups.abs().amax(-1, keepdim=True)
    limit, least = largest, torch.full_like(largest, torch.inf)
    for i in range(CLIP_STEPS):
        candidate = largest * (1 - i / (2 * CLIP_STEPS))
        change = _rounded(groups.clamp(-candidate, candidate), bits) - groups
        error = (change @ root.mT).square().sum(-1, keepdim=True)
        limit, least = torch.where(error < least, candidate, limit), torch.minimum(error, least)
    return groups.clamp(-limit, limit)


def _quantize(layer: LayerProblem, bits: int, group_size: int, clip_search: bool) -> PackedWeight:
    width = group_width(layer, group_size)
    if clip_search and layer.name.rpartition(".")[2] not in UNCLIPPED:
        sample = layer.statistic("activations", activations).sample
        layer = copy.copy(layer)
        layer.weight = clip_weight(layer.weight, sample, bits=bits, width=width)
    return rtn(layer, bits=bits, group_size=group_size)


def _rounded(groups: Tensor, bits: int) -> Tensor:
    return fit(groups, bits=bits).round(groups)


def _layers(block: Block) -> dict[str, LayerProblem]:
    """The block's layers as they are now, by full name."""
    return {layer.name: layer for group in block.groups for layer in group}


def _folds(problem: CompressProblem, block: Block, prefix: str) -> list[Fold]:
    """The folds of the block that rescale no weight of a layer that is to stay as it is."""
    compressed = _layers(block).keys()
    return [
        fold
        for fold in problem.handle.family.fold_pairs(block.module, problem.handle.config)
        if all(
            prefix + name in compressed
            for name in (fold.source, *fold.layers)
            if is_layer(block.module.get_submodule(name))
        )
    ]


def _layer_score(block: Block, fold: Fold, layer: LayerProblem) -> Score:
    """The score of a module that is one layer: d H dT, d being the change of its weight and H its second moments."""
    H = hessian(layer) / 2

    def score(weights: Mapping[str, Tensor]) -> float:
        change = weights[fold.output] - layer.weight
        return float((change @ H * change).sum() / len(change))

    return score


def _module_score(block: Block, fold: Fold, samples: int) -> Score:
    """The score of any other module: it is run with the weights on calls that are recorded first."""
    module = block.module.get_submodule(fold.output)
    layers = {name: block.module.get_submodule(name) for name in fold.layers}
    calls: list[Call] = []
    for recorded in block.record(fold.output):
        calls.append(recorded[fold.output])
        if sum(len(call.hidden) for call in calls) >= samples:
            break

    @torch.no_grad()
    def score(weights: Mapping[str, Tensor]) -> float:
        kept = {name: layer.weight.data for name, layer in layers.items()}
        try:
            for name, layer in layers.items():
                view.set_matrix(layer, weights[name])
            changes = [(first(call(module)) - first(call.output)).square() for call in calls]
        finally:
            for name, layer in layers.items():
                layer.weight.data = kept[name]
        return sum(float(change.sum()) for change in changes) / sum(change.numel() for change in changes)

    return score
