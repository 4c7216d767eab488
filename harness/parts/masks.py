"""Sparse updates: which weights train, an AdamW that keeps its state for these alone, and what is stored of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness.errors import BadInput

Score = Literal["lowrank", "magnitude", "smallest", "random"]
"""By what weights are chosen: their size after the matrix is truncated to a low rank, their size, the smallest size
after truncation, or at random."""


def score(weight: Tensor, kind: Score, *, rank: int = 8, generator: torch.Generator | None = None) -> Tensor:
    """How much each entry of a matrix (m, n) is worth training; the greatest are chosen. `rank` is the truncation's."""
    if kind == "magnitude":
        return weight.abs()
    if kind == "random":
        return torch.rand(weight.shape, generator=generator)
    truncated = truncate(weight, rank).abs()
    return truncated if kind == "lowrank" else -truncated


def truncate(weight: Tensor, rank: int) -> Tensor:
    """The nearest matrix of a rank, by the singular value decomposition, in float32."""
    u, s, v = torch.linalg.svd(weight.float(), full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


def top(scores: Tensor, count: int) -> Tensor:
    """Flat indices, ascending, of exactly `count` greatest entries; of equal ones the first are taken."""
    order = scores.flatten().sort(descending=True, stable=True).indices
    return order[:count].sort().values


class MaskedAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019) that updates chosen entries of its parameters and keeps moments for these.

    `indices` are flat indices by parameter, in the order of `params`. With all entries chosen it is AdamW. Weights that
    are not chosen are not decayed either.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        indices: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        # The indices are options of a group, not state: a loaded state is cast to its parameter's type.
        groups = [{"params": [p], "indices": chosen} for p, chosen in zip(params, indices, strict=True)]
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        for group in self.param_groups:
            zeros = torch.zeros(len(group["indices"]), device=group["params"][0].device)
            self.state[group["params"][0]] = {"step": 0, "mean": zeros, "square": zeros.clone()}

    @torch.no_grad()
    def choose(self, number: int, indices: Tensor) -> None:
        """Other entries for the parameter of that number: those chosen before keep their moments, new ones start with
        none, and the count of steps goes on."""
        group = self.param_groups[number]
        (parameter,) = group["params"]
        state = self.state[parameter]
        for name in ("mean", "square"):
            dense = torch.zeros(parameter.numel(), device=parameter.device)
            dense[group["indices"]] = state[name]
            state[name] = dense[indices]
        group["indices"] = indices

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            (parameter,), indices, (beta1, beta2) = group["params"], group["indices"], group["betas"]
            if parameter.grad is None:
                continue
            state, gradient = self.state[parameter], parameter.grad.flatten()[indices]
            state["step"] += 1
            mean = state["mean"].lerp_(gradient, 1 - beta1)
            square = state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            root = (square.sqrt() / (1 - beta2 ** state["step"]) ** 0.5).add_(group["eps"])
            flat = parameter.view(-1)
            values = flat[indices] * (1 - group["lr"] * group["weight_decay"])
            flat[indices] = values.addcdiv_(mean, root, value=-group["lr"] / (1 - beta1 ** state["step"]))
        return loss


def sparse_update(before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """What turns one tensor into another of its shape: the new `values` where they differ, and where that is: flat
    `indices`, or a bitmap (`mask`, 8 entries a byte), whichever is smaller."""
    changed = (before != after).flatten()
    indices = changed.nonzero().flatten().to(torch.int16 if changed.numel() <= 2**15 else torch.int32)
    values = after.flatten()[changed]
    bitmap = packed_bits(changed)
    return {"values": values, **({"mask": bitmap} if bitmap.nbytes < indices.nbytes else {"indices": indices})}


def apply_update(before: Tensor, update: Mapping[str, Tensor]) -> Tensor:
    """The inverse of `sparse_update`. Raises BadInput where the update is another tensor's."""
    flat = before.flatten().clone()
    where = unpacked_bits(update["mask"], len(flat)).nonzero().flatten() if "mask" in update else update["indices"]
    if len(where) != len(update["values"]) or (len(where) and int(where.max()) >= len(flat)):
        raise BadInput(f"the update does not fit a tensor of shape {tuple(before.shape)}")
    flat[where.long()] = update["values"]
    return flat.view_as(before)


def packed_bits(bits: Tensor) -> Tensor:
    """Booleans (n) -> bytes (ceil(n / 8)), the first bit lowest."""
    padded = torch.zeros(-(-len(bits) // 8) * 8, dtype=torch.uint8)
    padded[: len(bits)] = bits
    return (padded.view(-1, 8) << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpacked_bits(packed: Tensor, count: int) -> Tensor:
    """The inverse of `packed_bits`."""
    return ((packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).bool().flatten()[:count]
