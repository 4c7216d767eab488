"""OFQ: Oscillation-free Quantization for Low-bit Vision Transformers (Liu et al. 2023)."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from harness import BadInput, Claim, Fraction, Positive, Solution, TrainProblem, Weight, fit, method
from harness.models.inside import in_body, weight_of
from harness.packed import Uniform
from harness.params import Bits
from harness.parts.kd import divergences
from harness.parts.reparam import fold, latent_weight, own_layers, reparametrize
from harness.parts.ste import LSQ, Held, Oscillations, StatsQ
from harness.train import optimizers
from harness.train.loop import MakeOptimizer
from methods.training.lowbit import low_bit_attention, round_activations

OUTER_BITS = 8
"""Bits of the layers before and after the blocks, and of what they read."""
FULL_BITS = 16
"""Activations of so many bits are not rounded."""
LOOKED_AT = 0.2
"""Last part of the quantized training in which oscillations are counted."""
WEIGHTS_ALONE = {"scale": "statsq", "activation_bits": FULL_BITS}
IN_ALL = "2-bit DeiT-T 64.33%, DeiT-S 75.72%"
CLAIMS = [
    Claim(
        "oscillation", "ofq(scale=lsq)", "train-lowbit", params=WEIGHTS_ALONE,
        paper="a learned scale makes oscillation worse",
    ),
    Claim("accuracy", "ofq(anneal=0.0)", "train-lowbit", params={**WEIGHTS_ALONE, "anneal": 0.1}, paper=IN_ALL),
    Claim(
        "accuracy", "ofq(activation_bits=2, qkr=false)", "train-lowbit", params={"activation_bits": 2, "qkr": True},
        paper=IN_ALL,
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Rounded:
    """A weight that is rounded: its quantizer, and the numbers in full precision that it rounds."""

    quantizer: Any
    latent: Callable[[], Tensor]

    @torch.no_grad()
    def codes(self) -> Tensor:
        return self.quantizer.codes(self.latent())

    @torch.no_grad()
    def packed(self) -> Uniform:
        return self.quantizer.packed(self.latent())


@method(track="train", paper="liu2023oscillation", claims=CLAIMS)
def ofq(
    problem: TrainProblem,
    *,
    bits: Bits = 2,
    activation_bits: Bits = 2,
    scale: Literal["statsq", "lsq"] = "statsq",
    qkr: bool = True,
    anneal: Fraction = 0.1,
    boundary: Fraction = 0.005,
    full: Fraction = 0.4,
    lr: Positive = 1e-3,
    weight_decay: Weight = 0.05,
) -> Solution:
    """Low-bit weights whose scale follows their statistics; at the end only weights near a boundary still move.

    The part `full` of the budget trains the model in full precision; it is then the start and the teacher of the
    quantized one, whose loss adds the divergence from it to the labels'. `lsq` learns the weights' scales instead.
    Activations have learned steps (16 bits: none), and with `qkr` the product of query and key weights is rounded
    instead of each; both concern attention in a ViT alone, and the product is what is stored, (heads / 2) times as
    large. Of the quantized steps the last part `anneal` is confidence-guided annealing (CGA): weights further than
    `boundary` from the middle between two values are held, and entries of a product get no gradient. Layers outside
    the blocks have 8 bits. A product has no learned scale: with `lsq`, queries and keys are rounded each. Raises
    BadInput for weights of 16 bits.
    """
    if bits > OUTER_BITS:
        raise BadInput(f"ofq: bits={bits} is not accepted; it takes 1 to {OUTER_BITS}")
    joint = qkr and scale == "statsq"
    model, total = problem.model, problem.budget.steps()
    optimizer = optimizers.adamw(lr, weight_decay)
    first = max(1, round(full * total))
    curve = list(fit(problem, optimizer=optimizer, steps=first).log["curve"])
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    attentions = low_bit_attention(model, joint=joint)
    if activation_bits < FULL_BITS:
        round_activations(
            model, {name: activation_bits if in_body(name) else OUTER_BITS for name in own_layers(model)}, attentions,
            activation_bits, lambda: _one_batch(problem),
        )  # fmt: skip
    rounded = _round_weights(model, bits, scale, attentions)
    taught = functools.partial(_taught, problem, teacher)
    left = problem.budget.steps(forwards=2)  # a step is a forward pass of the teacher and one of the student
    last = round(anneal * left) if scale == "statsq" else 0
    seen = Oscillations()

    def look(model: nn.Module, step: int) -> None:
        if step >= min((1 - LOOKED_AT) * (left - last), left - last - 2):  # two steps at least
            for name in filter(in_body, rounded):
                seen.look(name, rounded[name].codes())

    kept = fit(problem, optimizer=optimizer, loss=taught, steps=max(1, left - last), after=look)
    curve += _later(kept.log["curve"], first)
    if last:
        kept = fit(problem, optimizer=_held(rounded, attentions, boundary, optimizer), loss=taught, steps=last)
        curve += _later(kept.log["curve"], first + left - last)
    log = {**kept.log, "curve": curve, "oscillation": seen.rates()}
    stored = _keep(model, rounded, attentions)
    return Solution(model=model, stored=stored, log=log, extra={"oscillation": seen.rates()})


def _one_batch(problem: TrainProblem) -> None:
    """Call the model on the first training samples; a forward pass of a batch."""
    with torch.no_grad():
        problem.task.logits(problem.model, problem.task.train.inputs[: problem.budget.batch])


def _taught(
    problem: TrainProblem, teacher: nn.Module, model: nn.Module, batch: Any, generator: torch.Generator
) -> dict[str, Tensor]:
    """The loss on the labels and the divergence from the teacher."""
    with torch.no_grad():
        told = problem.task.logits(teacher, batch.inputs)
    logits = problem.task.logits(model, batch.inputs)
    labels = nn.functional.cross_entropy(logits.flatten(0, -2), batch.labels.flatten())
    return {"labels": labels, "teacher": divergences(logits, told).mean()}


def _held(
    rounded: dict[str, Rounded], attentions: dict[str, Any], boundary: float, optimizer: MakeOptimizer
) -> MakeOptimizer:
    """The optimizer of the annealing: weights far from a boundary keep their values, products get no gradient there."""
    far = functools.partial(far_from_boundary, boundary=boundary)
    for attention in attentions.values():
        attention.held = far
    places = {id(one.latent()): one.quantizer for name, one in rounded.items() if name not in attentions}

    def held(parameter: Tensor) -> Tensor | None:
        quantizer = places.get(id(parameter))
        return None if quantizer is None else far(quantizer, parameter)

    return lambda named: [Held(cast(torch.optim.Optimizer, optimizer(named)), held)]  # type: ignore[list-item]


def _round_weights(model: nn.Module, bits: int, scale: str, attentions: dict[str, Any]) -> dict[str, Rounded]:
    """Let layers compute with rounded weights, and attention with the rounded product of queries and keys; by name."""
    rounded: dict[str, Rounded] = {}
    joint = {name for name, attention in attentions.items() if attention.joint}
    for name in own_layers(model):
        if name.rpartition(".")[0] in joint and name.endswith((".q", ".k")):
            continue
        width = bits if in_body(name) else OUTER_BITS
        quantizer = StatsQ(width) if scale == "statsq" else LSQ(width, weight_of(model, name))
        reparametrize(model, [name], functools.partial(_given, quantizer))
        rounded[name] = Rounded(quantizer, functools.partial(latent_weight, model, name))
    for name in joint:
        attentions[name].quantizer = StatsQ(bits)
        rounded[name] = Rounded(attentions[name].quantizer, attentions[name].product)
    return rounded


@torch.no_grad()
def _keep(model: nn.Module, rounded: dict[str, Rounded], attentions: dict[str, Any]) -> dict[str, Tensor]:
    """The model with the values of its stored weights, and the tensors that a file keeps."""
    packed = {name: one.packed() for name, one in rounded.items()}
    fold(model, [name for name in packed if name not in attentions])
    for name, one in packed.items():
        if name in attentions:
            attentions[name].store(one.dequantize())
        else:
            weight_of(model, name).copy_(one.dequantize().view_as(weight_of(model, name)))
    done = {f"{name}.stored" if name in attentions else f"{name}.weight" for name in packed}
    rest = {name: tensor for name, tensor in model.state_dict().items() if name not in done}
    return {f"{name}.{part}": t for name, one in packed.items() for part, t in one.tensors().items()} | rest


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
