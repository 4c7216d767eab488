"""PTQTP: Xiao et al., "PTQTP: Post-Training Quantization to Trit-Planes for Large Language Models" (2025)."""

from __future__ import annotations

import itertools
from typing import Annotated

import torch
from torch import Tensor

from harness import BadInput, Claim, Count, GroupSize, LayerProblem, OneOf, PackedWeight, Positive, Sum, Ternary, method
from methods.quantization.grids import group_width
from methods.quantization.levels import alternate, nearest

LEAST_RIDGE, MOST_RIDGE, CONDITION = 1e-8, 1.0, 1e6
SECOND = 0.4
"""Of the mean magnitude: where the second plane's factor starts, and that of each further one beside the one before."""


@method(
    track="compress",
    paper="xiao2025ptqtp",
    claims=[
        Claim(
            metric="perplexity(dataset=wikitext2)",
            than="rtn(bits=3, group_size=32, clip=minmax)",  # 3.59 bits as stored, against 3.49
            suite="ptq-lm-levels",
            params={"group_size": 128},
            paper="Llama-3 and Qwen3, 0.6 to 70B: better than other methods below 4 bits",
        ),
    ],
)
def ptqtp(
    layer: LayerProblem,
    *,
    planes: Annotated[int, OneOf((1, 2, 3))] = 2,
    group_size: GroupSize = 128,
    tied: bool = False,
    iterations: Count = 50,
    tolerance: Positive = 1e-4,
) -> PackedWeight:
    """Each group of weights is the sum of ternary planes, each times a factor.

    In turns, until the factors move by less than `tolerance` of their length and at most `iterations` times: each
    weight takes the nearest of the 3^planes values, and the factors are the ridge regression of the group on its
    planes. The ridge starts at 1e-8 and grows tenfold, to at most 1, while the condition number is above 1e6 (both
    planes may be the same). Reads no data. `tied` makes the first of two factors three times the second: a uniform grid
    of nine levels. Five trits are stored in a byte, and weights are rounded with the factors as stored in half
    precision: two planes in groups of 128 take 3.5 bits, not the 1.58 of one plane.

    The start (mean magnitude, and 0.4 of it for the second plane) is ours; a group that is a sum of planes is found
    again from there only where its own factors are not far from that ratio. Constants of the iteration are those of an
    independent implementation, since the paper's code is not released. Raises BadInput for a group size that does not
    divide the layer's inputs, and for `tied` with other than two planes.
    """
    if tied and planes != 2:
        raise BadInput(f"ptqtp: tied=True is of two planes, not {planes}; leave one of them out")
    m, n = layer.weight.shape
    groups = layer.weight.view(m, -1, group_width(layer, group_size))
    trits = _patterns(planes, groups)
    ratios = torch.tensor([[3.0], [1.0]] if tied else torch.eye(planes).tolist(), device=groups.device)
    mean = groups.abs().mean(-1, keepdim=True)
    start = mean / 3 if tied else mean * SECOND ** torch.arange(planes, device=groups.device)
    found = alternate(groups, trits @ ratios, start, _ridge, iterations=iterations, tolerance=tolerance)
    factors = (found @ ratios.T).half().float()
    chosen = trits[nearest(groups, factors @ trits.T).view(m, n).long()]
    parts = [
        Ternary.pack(chosen[..., k], factors[..., k], group_size=group_size, layout="base3") for k in range(planes)
    ]
    return parts[0] if planes == 1 else Sum(tuple(parts))


def _patterns(planes: int, like: Tensor) -> Tensor:
    """(3^planes, planes): all choices of trits, those with fewest that are not zero first, so that zero stays zero."""
    choices = sorted(itertools.product((-1, 0, 1), repeat=planes), key=lambda trits: sum(map(abs, trits)))
    return torch.tensor(choices, dtype=like.dtype, device=like.device)


def _ridge(gram: Tensor, moment: Tensor) -> Tensor:
    eigenvalues = torch.linalg.eigvalsh(gram).clamp(min=0)
    ridge = torch.full_like(eigenvalues[..., 0], LEAST_RIDGE)
    while True:
        condition = (eigenvalues[..., -1] + ridge) / (eigenvalues[..., 0] + ridge)
        grows = (condition > CONDITION) & (ridge < MOST_RIDGE)
        if not grows.any():
            break
        ridge = torch.where(grows, ridge * 10, ridge)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge[..., None, None] * eye, moment[..., None])[..., 0]
