"""The contract of a stored format, executable on a layer of a moment."""

from __future__ import annotations

from typing import Any

import torch

from harness.check import Broken, Check
from harness.randomness import random_state, restored_random_state
from harness.registry import Entry
from harness.tracks.checks import every_parameter_has_a_default
from harness.tracks.latency import maker

SHAPES = ((96, 256), (64, 640))
TOLERANCE = {"int8": 0.03, "float": 1e-3}
"""Largest error over the largest output, by what the activations are rounded to."""


def gives_the_layer_asked_for(entry: Entry) -> str:
    """A CompressedLinear of the shape that was asked for, whose size is that of its stored tensors."""
    seen = []
    for shape in SHAPES:
        layer = _layer(entry, shape)
        seen.append(f"{layer.weight.packed.bits_per_weight:.3g}")
    return f"{' and '.join(seen)} bits per weight"


def its_kernel_computes_what_the_reference_does(entry: Entry) -> str:
    """Products with one and with eight rows are those with the dequantized weight."""
    worst = 0.0
    for m, n in SHAPES:
        layer = _layer(entry, (m, n))
        x = torch.randn(8, n, generator=torch.Generator().manual_seed(1))
        wanted = x @ layer.weight.packed.dequantize().T
        limit = TOLERANCE["int8" if layer.kernel == "int8" else "float"] * float(wanted.abs().max())
        for rows in (1, 8):
            with torch.no_grad():
                error = float((layer(x[:rows]) - wanted[:rows]).abs().max())
            if not error <= limit:
                raise Broken(f"{m} x {n}, {rows} rows: off by {error:.3g}, more than {limit:.3g}, on {layer.runs_on}")
            worst = max(worst, error / float(wanted.abs().max()))
    return f"off by at most {worst:.1e} of the largest output"


def same_seed_gives_the_same_weight(entry: Entry) -> str:
    """Two layers made from one seed hold the same bytes."""
    one, two = (_layer(entry, SHAPES[0]).weight.packed.tensors() for _ in range(2))
    if one.keys() != two.keys() or any(not torch.equal(one[name], two[name]) for name in one):
        raise Broken("two layers of one seed differ; draw from the layer's generator only")
    return f"{len(one)} tensors agree"


def global_random_state_is_left_alone(entry: Entry) -> str:
    """torch, numpy and random hold the state they had."""
    with restored_random_state():
        before = random_state()
        _layer(entry, SHAPES[0])
        if random_state() != before:
            raise Broken("it changed the global random state; draw from the layer's generator only")
    return "torch, numpy and random untouched"


def _layer(entry: Entry, shape: tuple[int, int]) -> Any:
    params = {name: parameter.default for name, parameter in entry.params.items()}
    return maker(entry, params, torch.Generator().manual_seed(0))(*shape)


CHECKS: tuple[Check, ...] = (
    every_parameter_has_a_default,
    gives_the_layer_asked_for,
    its_kernel_computes_what_the_reference_does,
    same_seed_gives_the_same_weight,
    global_random_state_is_left_alone,
)
