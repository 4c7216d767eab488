"""Quantized distillation (Polino et al. 2018): a student whose rounded weights learn from a teacher."""

from __future__ import annotations

from typing import Literal

from harness import BadInput, Claim, Count, DistillProblem, Fraction, Positive, Solution, Weight, method
from harness.params import Bits
from harness.train import optimizers
from methods.distillation.buckets import Points, evenly, keep_rounded, quantized_layers, rounded_layers
from methods.distillation.teaching import teach

WIDEST = 8
"""The most bits of a code."""
TAUGHT = {"rounded": "throughout", "alpha": 0.7}
CLAIMS = [
    Claim(
        "accuracy", "quantized_distillation(rounded=after)", "distill-vision", params=TAUGHT,
        paper="students that are quantized while they learn come near their teachers in full precision",
    ),
    Claim(
        "accuracy", "quantized_distillation(alpha=0.0)", "distill-vision",
        params=TAUGHT, paper="the teacher's answers help a quantized student",
    ),
]  # fmt: skip


@method(track="distill", paper="polino2018model", claims=CLAIMS)
def quantized_distillation(
    problem: DistillProblem,
    *,
    bits: Bits = 4,
    bucket: Count = 256,
    temperature: Positive = 2.0,
    alpha: Fraction = 0.7,
    rounded: Literal["throughout", "after"] = "throughout",
    ends: bool = True,
    lr: Positive = 0.1,
    weight_decay: Weight = 2.2e-4,
    momentum: Fraction = 0.9,
) -> Solution:
    """The student computes with rounded weights, and the gradient taken there moves the ones in full precision.

    The weights of linear layers and convolutions (`ends`: the first and last of them, too) lie in buckets, each with
    2^bits even points between its least and its largest value (Algorithm 1); biases and norms stay as they are. The
    loss is alpha T^2 KL + (1 - alpha) CE, the KL summed over the classes (the released code divides it by their
    number, too). `rounded="after"` trains in full precision and rounds at the end, which is the paper's baseline;
    `alpha=0` is quantized training without a teacher. SGD with Nesterov's momentum. Raises BadInput for 16 bits.
    """
    if bits > WIDEST:
        raise BadInput(f"quantized_distillation: bits={bits} is not accepted; it takes 1 to {WIDEST}")
    model = problem.model
    points = {name: Points(evenly(bits), bucket) for name in quantized_layers(model, ends=ends)}
    if rounded == "throughout":
        rounded_layers(model, points)
    solution = teach(
        problem, temperature, alpha, lr=lr, weight_decay=weight_decay,
        optimizer=optimizers.sgd(lr, weight_decay, momentum),
    )  # fmt: skip
    if rounded == "after":
        rounded_layers(model, points)
    solution.stored = keep_rounded(model, points)
    return solution
