"""ELUTQ: Nie et al., "Efficient LUT-Aware Quantization for Deploying Large Language Models on Edge Devices" (2025)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from harness import BadInput, BitPlanes, Claim, Count, Fraction, GroupSize, LayerProblem, OneOf, PackedWeight, method
from harness.compress import solve_columns
from methods.quantization.gptq import _factor as damped_factor
from methods.quantization.grids import group_width
from methods.quantization.levels import alternate, nearest

Planes = Annotated[int, OneOf((1, 2, 3, 4))]


@method(
    track="compress",
    paper="nie2025elutq",
    claims=[
        Claim(
            metric="perplexity(dataset=wikitext2)",
            than="gptq(bits=2, group_size=32)",
            suite="ptq-lm-levels",
            params={"bits": 2, "group_size": 128},
            paper="Llama-3-8B, C4, 2 bits in groups of 128: GPTQ 181.8, HLQ-GPTQ 27.1 (fp16 8.89)",
        ),
    ],
)
def elutq(
    layer: LayerProblem,
    *,
    bits: Planes = 2,
    group_size: GroupSize = 128,
    iterations: Count = 10,
    compensate: bool = True,
    reassign: bool = False,
    damping: Fraction = 0.01,
    block_size: Count = 128,
) -> PackedWeight:
    """Each group of weights is an offset plus bit planes with free factors, instead of factors of 1, 2, 4.

    Hierarchical linear quantization: w = z + sum_k s_k B_k with B_k of 0 and 1. The factors start as those of the
    uniform grid over the group's range, s_k = (max - min) / (2^bits - 1) 2^k and z = min; then, `iterations` times,
    each weight goes to the nearest of the 2^bits levels and (s, z) to the least squares for these choices. With
    `compensate` (HLQ-GPTQ) groups are taken from left to right: the levels are fitted to the weights of a group as the
    columns before it left them, and the errors are spread over the later columns as GPTQ does. As in the released code
    the choices of a group are made at once, before its own errors are spread; `reassign` makes each column's when it
    comes up. Factors are half precision, and weights are rounded with the factors as stored. Without `compensate` no
    calibration data is read.

    The training of the factors that may follow (HLQ-Finetuning) is not done. An input that is always zero is treated as
    in `gptq`. Raises BadInput for a group size that does not divide the layer's inputs or is no multiple of 8, and as
    `gptq` does.
    """
    m, n = layer.weight.shape
    width = group_width(layer, group_size)
    if width % 8 and width < n:
        raise BadInput(f"layer {layer.name}: group_size={group_size} is no multiple of 8, as bit planes are stored")
    patterns = _patterns(bits, layer.weight)
    if not compensate:
        groups = layer.weight.view(m, -1, width)
        factors = _fit(groups, patterns, iterations)
        return _pack(nearest(groups, factors @ patterns.T).view(m, n), factors, patterns, group_size)

    U, _, dead = layer.statistic(
        f"gptq damping={damping} act_order=False", lambda layer: damped_factor(layer.hessian(), damping, False)
    )
    weight = layer.weight.masked_fill(dead, 0) if dead.any() else layer.weight
    fitted: list[Tensor] = []
    codes: list[Tensor] = []

    def start_group(columns: Tensor, j: int) -> None:
        group = columns.T.contiguous()
        fitted.append(_fit(group, patterns, iterations))
        codes.append(nearest(group, fitted[-1] @ patterns.T))

    def quantize(w: Tensor, j: int) -> Tensor:
        levels, at = fitted[-1] @ patterns.T, slice(j % width, j % width + 1)
        if reassign:
            codes[-1][:, at] = nearest(w[:, None], levels)
        return levels.gather(1, codes[-1][:, at].long())[:, 0]

    solved = solve_columns(weight, U, quantize, start_group=start_group, group_size=width, block=block_size)
    layer.log["proxy_loss"] = float(solved.loss.sum())
    return _pack(torch.cat(codes, 1), torch.stack(fitted, 1), patterns, group_size)


def _patterns(bits: int, like: Tensor) -> Tensor:
    """(2^bits, bits + 1): which factors each level adds up, the offset last."""
    numbers = torch.arange(2**bits, device=like.device)[:, None]
    planes = numbers >> torch.arange(bits, device=like.device) & 1
    return torch.cat([planes, torch.ones_like(numbers)], 1).to(like.dtype)


def _fit(groups: Tensor, patterns: Tensor, iterations: int) -> Tensor:
    """Factors (..., bits + 1) of groups (..., g), to half precision."""
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    bits = patterns.shape[1] - 1
    steps = 2.0 ** torch.arange(bits, device=groups.device) / (2**bits - 1)
    start = torch.cat([(high - low) * steps, low], -1)
    return alternate(groups, patterns, start, _least_squares, iterations=iterations).half().to(groups.dtype)


def _least_squares(gram: Tensor, moment: Tensor) -> Tensor:
    return (torch.linalg.pinv(gram, hermitian=True) @ moment[..., None])[..., 0]


def _pack(codes: Tensor, factors: Tensor, patterns: Tensor, group_size: int) -> BitPlanes:
    """Codes (m, n) and factors (m, G, bits + 1) as they are stored."""
    planes = patterns[:, :-1].to(torch.uint8)[codes.long()]
    return BitPlanes.pack(planes, factors[..., :-1], factors[..., -1], group_size=group_size)
