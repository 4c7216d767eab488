"""Bone: Block Affine Transformation (Kang 2024)."""

from __future__ import annotations

from typing import Literal

from harness import AdaptProblem, Claim, Count, Positive, Solution, Weight, method
from harness.parts.adapters import Bat, Bone
from methods.adaptation.attached import fit_adapters, fitting

TARGET = "cross_entropy(task=target)"
GSM8K = "LLaMA2-7B on MetaMathQA: GSM8K 49.36, 5.84 above PiSSA; faster convergence than LoRA's variants"
CLAIMS = [
    Claim(TARGET, "lora", "adapt-lm", params={"variant": "bat"}, paper=GSM8K),
    Claim(TARGET, "bone(variant=bone)", "adapt-lm", params={"variant": "bat"}, paper="weight guide helps"),
    Claim(TARGET, "bone(variant=bone)", "adapt-vision", params={"variant": "bat"}, paper="weight guide helps"),
]


@method(track="adapt", paper="kang2024bone", claims=CLAIMS)
def bone(
    problem: AdaptProblem,
    *,
    variant: Literal["bat", "bone"] = "bat",
    block: Count | None = None,
    lr: Positive = 1e-3,
    weight_decay: Weight = 0.0,
) -> Solution:
    """Every r x r block of a weight is changed by a trainable block, shared along its row of blocks.

    `bat` is the paper's form, W_ab + W_ab B_a + B_a, and needs an r that divides both sides of every layer; `bone`
    leaves out the weight guide, W_ab B_a. Both train outputs * r numbers a layer; without a `block`, r is the one
    nearest to the problem's grant. The paper's r is 64, its rate 2e-5, for 7 billion weights. Raises BadInput for a
    block that does not divide.
    """
    kind = Bat if variant == "bat" else Bone
    shapes = problem.shapes().values()
    fits = [
        r for r in range(1, min(map(min, shapes)) + 1) if kind is Bone or not any(m % r or n % r for m, n in shapes)
    ]
    chosen = fitting(problem, "block", fits if block is None else [block], kind.count)
    return fit_adapters(
        problem, lambda name, shape: kind(shape, chosen.choice), chosen, lr=lr, weight_decay=weight_decay
    )
