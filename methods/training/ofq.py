"""OFQ: Oscillation-free Quantization for Low-bit Vision Transformers (Liu et al. 2023)."""

from __future__ import annotations

import copy
import functools
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from harness import BadInput, Claim, Fraction, Positive, Solution, TrainProblem, Weight, fit, method
from harness.models.inside import in_body, weight_of
from harness.params import Bits
from harness.parts.kd import divergences
from harness.parts.reparam import fold, own_layers, reparametrize
from harness.parts.ste import LSQ, Held, Oscillations, StatsQ
from harness.train import optimizers

OUTER_BITS = 8
"""Bits of the layers before and after the blocks."""
LOOKED_AT = 0.2
"""Last part of the quantized training in which oscillations are counted."""
STATSQ = {"scale": "statsq"}
CLAIMS = [
    Claim(
        "oscillation", "ofq(scale=lsq)", "train-lowbit", params=STATSQ, paper="a learned scale makes oscillation worse"
    ),
    Claim("accuracy", "ofq(anneal=0.0)", "train-lowbit", params={**STATSQ, "anneal": 0.1}, paper="2-bit DeiT-T 64.33%"),
]


@method(track="train", paper="liu2023oscillation", claims=CLAIMS)
def ofq(
    problem: TrainProblem,
    *,
    bits: Bits = 2,
    scale: Literal["statsq", "lsq"] = "statsq",
    anneal: Fraction = 0.1,
    boundary: Fraction = 0.005,
    full: Fraction = 0.4,
    lr: Positive = 1e-3,
    weight_decay: Weight = 0.05,
) -> Solution:
    """Low-bit weights whose scale follows their statistics; at the end only weights near a boundary still move.

    The part `full` of the budget trains the model in full precision; it is then the start and the teacher of the
    quantized one, whose loss adds the divergence from it to the labels'. Of the quantized steps the last part `anneal`
    is confidence-guided annealing (CGA): weights further than `boundary` from the middle between two values are held.
    `lsq` learns the scales instead. Layers outside the blocks have 8 bits. Weights alone: activations stay in full
    precision, and queries and keys are not reparametrized together (QKR). Raises BadInput for 16 bits.
    """
    if bits > OUTER_BITS:
        raise BadInput(f"ofq: bits={bits} is not accepted; it takes 1 to {OUTER_BITS}")
    model, total = problem.model, problem.budget.steps()
    optimizer = optimizers.adamw(lr, weight_decay)
    first = max(1, round(full * total))
    curve = list(fit(problem, optimizer=optimizer, steps=first).log["curve"])
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    layers = own_layers(model)
    quantizers: dict[str, Any] = {}
    for name in layers:
        width = bits if in_body(name) else OUTER_BITS
        quantizers[name] = StatsQ(width) if scale == "statsq" else LSQ(width, weight_of(model, name))
        reparametrize(model, [name], functools.partial(_given, quantizers[name]))
    latent: dict[str, Any] = {name: model.get_submodule(name).parametrizations.weight.original for name in layers}

    def taught(model: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            told = problem.task.logits(teacher, batch.inputs)
        logits = problem.task.logits(model, batch.inputs)
        labels = nn.functional.cross_entropy(logits.flatten(0, -2), batch.labels.flatten())
        return {"labels": labels, "teacher": divergences(logits, told).mean()}

    left = (total - first) // 2  # a step is a forward pass of the teacher and one of the student
    last = round(anneal * left)
    seen = Oscillations()

    def look(model: nn.Module, step: int) -> None:
        if step >= min((1 - LOOKED_AT) * (left - last), left - last - 2):  # two steps at least
            for name in filter(in_body, layers):
                seen.look(name, quantizers[name].codes(latent[name]))

    kept = fit(problem, optimizer=optimizer, loss=taught, steps=max(1, left - last), after=look)
    curve += _later(kept.log["curve"], first)
    if last and scale == "statsq":
        places = {id(latent[name]): quantizers[name] for name in layers}

        def far(parameter: Tensor) -> Tensor | None:
            quantizer = places.get(id(parameter))
            return None if quantizer is None else far_from_boundary(quantizer, parameter, boundary)

        def holding(named: dict[str, nn.Parameter]) -> list[Any]:
            return [Held(cast(torch.optim.Optimizer, optimizer(named)), far)]

        kept = fit(problem, optimizer=holding, loss=taught, steps=last)
        curve += _later(kept.log["curve"], first + left - last)
    packed = {name: quantizers[name].packed(latent[name]) for name in layers}
    fold(model, layers)
    with torch.no_grad():
        for name, one in packed.items():
            weight_of(model, name).copy_(one.dequantize().view_as(weight_of(model, name)))
    rest = {name: t for name, t in model.state_dict().items() if name.removesuffix(".weight") not in packed}
    stored = {f"{name}.{part}": t for name, one in packed.items() for part, t in one.tensors().items()}
    log = {**kept.log, "curve": curve, "oscillation": seen.rates()}
    return Solution(model=model, stored={**stored, **rest}, log=log, extra={"oscillation": seen.rates()})


def _given(quantizer: nn.Module, weight: Tensor) -> nn.Module:
    return quantizer


def far_from_boundary(quantizer: StatsQ, weight: Tensor, boundary: float) -> Tensor:
    """Weights further than `boundary`, in steps of the grid, from the middle between two neighbouring values."""
    places = quantizer.places(weight)
    half = 2 ** (quantizer.bits - 1)
    nearest = places.floor().clamp(-half, half - 2) + 0.5
    return ((places - nearest).abs() > boundary).view_as(weight)


def _later(curve: list[dict[str, Any]], steps: int) -> list[dict[str, Any]]:
    """A curve that begins after so many steps."""
    return [{**row, "step": row["step"] + steps} for row in curve]
