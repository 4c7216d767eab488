"""GPTQ: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from harness import Bits, Claim, Count, Fraction, GroupSize, LayerProblem, PackedWeight, method
from harness.compress import inverse_factor, solve_columns
from harness.compress.statistics import dead_columns
from methods.quantization.grids import Clip, Grid, fit, group_width, pack


@method(
    track="compress",
    paper="frantar2022gptq",
    claims=[
        Claim(
            metric="perplexity(dataset=wikitext2)",
            than="rtn(clip=minmax)",
            suite="ptq-lm",
            params={"bits": 3},
            paper="OPT-175B, WikiText-2, 3 bits per row: 8.68 (fp16 8.34)",
        ),
        Claim(
            metric="perplexity(dataset=wikitext2)",
            than="rtn(clip=minmax)",
            suite="ptq-lm",
            params={"bits": 4},
            paper="OPT-175B, WikiText-2, 4 bits per row: 8.37 (fp16 8.34)",
        ),
    ],
)
def gptq(
    layer: LayerProblem,
    *,
    bits: Bits = 4,
    group_size: GroupSize = -1,
    symmetric: bool = False,
    damping: Fraction = 0.01,
    act_order: bool = False,
    static_groups: bool = False,
    clip: Clip = "minmax",
    block_size: Count = 128,
) -> PackedWeight:
    """Weights are rounded column by column, and each error is compensated by the columns not yet rounded.

    Algorithm 1: H = 2 X XT of the layer's inputs in the compressed prefix, damped by `damping` times its mean diagonal
    (10 times more as often as the factorization fails); U, the Cholesky factor of the inverse (step 3); the columns are
    rounded in order, W[:, j:] -= (w - q) / U[j, j] U[j, j:] (step 1), with lazy updates beyond `block_size` columns
    (step 2). `act_order` takes the columns by falling diagonal of H, as the released code does. The grid of a group of
    `group_size` inputs is fitted to the compensated weights when its first column comes up; with `static_groups` to the
    original weights, and `act_order` then needs no permutation to be stored. 16 bits keep the weight as it is.

    Deviations: when its grid is fitted, all columns of a group are up to date, whatever the block size (the released
    code leaves out the updates of the current block). An input that is always zero gets the mean of the others on the
    diagonal of H, not 1, so that the damping does not depend on it. Scales are half precision, and weights are rounded
    with the scale as stored. Raises BadInput for a group size that does not divide the layer's inputs and without
    calibration rows, TrialFailed where H is not finite or not positive definite.
    """
    if bits == 16:
        return layer.dense()
    m, n = layer.weight.shape
    width = group_width(layer, group_size)
    U, order, dead = layer.statistic(
        f"gptq damping={damping} act_order={act_order}", lambda layer: _factor(layer.hessian(), damping, act_order)
    )
    weight = layer.weight.masked_fill(dead, 0) if dead.any() else layer.weight

    # The grid of a whole row is fitted before any column is rounded.
    static = static_groups or width == n
    grids: list[Grid] = []
    if static:
        fitted = fit(weight.reshape(m, -1, width), bits=bits, symmetric=symmetric, clip=clip)
        grids = [Grid(*(tensor[:, group, 0].contiguous() for tensor in fitted)) for group in range(n // width)]
    group_of = (order // width).tolist() if static else [j // width for j in range(n)]

    def start_group(columns: Tensor, j: int) -> None:
        grids.append(fit(columns, bits=bits, symmetric=symmetric, clip=clip, dim=0).view(m))

    solved = solve_columns(
        weight[:, order] if act_order else weight,
        U,
        lambda w, j: grids[group_of[j]].round(w),
        start_group=None if static else start_group,
        group_size=width,
        block=block_size,
    )
    layer.log["proxy_loss"] = float(solved.loss.sum())

    values = solved.quantized[:, order.argsort()] if act_order and static else solved.quantized
    codes = torch.cat([grid.codes(part) for grid, part in zip(grids, values.T.split(width), strict=True)])
    return pack(
        codes.T.contiguous(),
        Grid(*(torch.stack(tensors, 1) for tensors in zip(*grids, strict=True))),
        bits=bits,
        group_size=group_size,
        symmetric=symmetric,
        permutation=order if act_order and not static else None,
    )


def _factor(hessian: Tensor, damping: float, act_order: bool) -> tuple[Tensor, Tensor, Tensor]:
    """U of the columns in the order they are rounded in, that order (n,), and which inputs are always zero (n,)."""
    dead = dead_columns(hessian)
    order = torch.arange(len(hessian), device=hessian.device)
    if dead.any():
        hessian = hessian.clone()
        hessian.diagonal()[dead] = 1 if dead.all() else hessian.diagonal()[~dead].mean()
    if not act_order:
        return inverse_factor(hessian, damping), order, dead
    order = hessian.diagonal().argsort(descending=True, stable=True)
    return inverse_factor(hessian[order][:, order], damping), order, dead
