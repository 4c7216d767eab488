"""harness check: every break of the contract is found, in a file as an author of a method would write it."""

from __future__ import annotations

import textwrap

import pytest

from harness import BadInput, registry
from harness.check import Report, check

HEAD = """
import dataclasses, random
from typing import Annotated
import numpy as np
import torch
from harness import (
    Bits, CompressProblem, Dense, Fraction, LayerProblem, PackedWeight, Solution, Sparse, compress_layers, method
)
from harness.packed import packed, part
"""

SOUND = """
@method(track="compress")
def toy(layer: LayerProblem, *, sparsity: Fraction = 0.5) -> PackedWeight:
    \"\"\"Drops the first inputs of a layer.\"\"\"
    if sparsity == 0:
        return layer.dense()
    m, n = layer.weight.shape
    dropped = round(sparsity * n)
    keep = torch.arange(n) >= dropped
    return Sparse.pack(layer.weight, keep.expand(m, n), layer.dtype)
"""

PER_LAYER = """
@method(track="compress")
def toy(layer: LayerProblem{params}) -> PackedWeight:
    \"\"\"A method with a fault.\"\"\"
{body}
"""

WHOLE = """
@method(track="compress")
def toy(problem: CompressProblem) -> Solution:
    \"\"\"A whole-model method with a fault.\"\"\"
{body}
"""


def layerwise(body: str, params: str = "") -> str:
    return PER_LAYER.format(body=textwrap.indent(textwrap.dedent(body), "    "), params=params)


def whole(body: str) -> str:
    return WHOLE.format(body=textwrap.indent(textwrap.dedent(body), "    "))


BROKEN = {
    "every parameter has a default": (layerwise("return layer.dense()", ", *, sparsity: Fraction"), "sparsity"),
    "returns every layer": (layerwise("return Dense(layer.weight[:, 1:])"), "shape"),
    "same seed gives the same result": (
        layerwise("with torch.random.fork_rng(devices=[]):\n    return Dense(layer.weight * torch.rand(()))"),
        "layer differs between two runs",
    ),
    "global random state is left alone": (layerwise("np.random.rand()\nreturn layer.dense()"), "numpy"),
    "inputs are not modified": (
        layerwise("for x in layer.inputs():\n    x.mul_(2)\nreturn layer.dense()"),
        "inputs 0",
    ),
    "saving and loading changes nothing": (
        """
@packed("toy_amnesiac")
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Amnesiac(Dense):
    def dequantize(self):
        return self.weight.float() * getattr(self, "secret", 1.0)
"""
        + layerwise('weight = Amnesiac(layer.weight)\nobject.__setattr__(weight, "secret", 2.0)\nreturn weight'),
        "saved and loaded",
    ),
    "counted size is the files": (
        """
@packed("toy_liar")
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Liar(Dense):
    def budget(self):
        return {"codes": 2 * self.weight.numel()}
"""
        + layerwise("return Liar(layer.weight)"),
        "counts 6144 bits and stores",
    ),
    "identity setting gives the input back": (
        layerwise("return Dense(layer.weight.round(decimals=1))", ", *, bits: Bits = 4"),
        "bits=16 changes layer",
    ),
    "odd shapes are handled or refused": (
        layerwise("scale = layer.weight.abs().amax(1, keepdim=True)\nreturn Dense(layer.weight / scale)"),
        "an all-zero row",
    ),
    "non finite weights are refused": (
        whole(
            """
            layers = [n for n, m in problem.model.named_modules() if type(m).__name__ == "Linear" and n != "lm_head"]
            return Solution({n: Dense(problem.model.get_submodule(n).weight.half()) for n in layers})
            """
        ),
        "accepted a weight of nan",
    ),
}
ALSO = {
    "torch's global generator": (
        layerwise("return Dense(layer.weight * torch.rand(()))"),
        {"same seed gives the same result", "global random state is left alone"},
    ),
    "python's global generator": (
        layerwise("random.random()\nreturn layer.dense()"),
        {"global random state is left alone"},
    ),
    "the weight in place": (layerwise("layer.weight.mul_(2)\nreturn layer.dense()"), {"inputs are not modified"}),
    "calibration data of a whole model": (
        whole(
            "problem.calibration[0][list(problem.calibration[0])[0]].zero_()\n"
            "return compress_layers(problem, lambda layer: layer.dense())"
        ),
        {"inputs are not modified"},
    ),
    "a layer forgotten": (
        whole(
            "solution = compress_layers(problem, lambda layer: layer.dense())\n"
            "solution.packed.popitem()\nreturn solution"
        ),
        {"returns every layer", "odd shapes are handled or refused"},
    ),
    "an exception that is not BadInput": (
        layerwise('if layer.weight.shape[1] % 4:\n    raise ValueError("bad width")\nreturn layer.dense()'),
        {"odd shapes are handled or refused"},
    ),
    "numbers hidden in the description": (
        """
@packed("toy_smuggler")
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Smuggler(PackedWeight):
    rows: list
    scale: torch.Tensor = part("scales")
    @property
    def shape(self):
        return len(self.rows), len(self.rows[0])
    def dequantize(self):
        return torch.tensor(self.rows) * self.scale
"""
        + layerwise("return Smuggler(layer.weight.tolist(), torch.ones(()))"),
        {"counted size is the files", "saving and loading changes nothing"},
    ),
}


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """Toys are forgotten after the test."""
    registry.discover()
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))


def check_source(tmp_path, source: str) -> Report:
    path = tmp_path / "toy.py"
    path.write_text(HEAD + source)
    return check(str(path))


def test_a_sound_method_passes(tmp_path):
    report = check_source(tmp_path, SOUND)
    assert report.ok, [row for row in report.rows if not row.ok]
    assert {row.method for row in report.rows} == {"toy"}
    assert set(BROKEN) == {row.check for row in report.rows}


@pytest.mark.parametrize("name", BROKEN)
def test_each_check_catches_its_break(tmp_path, name):
    source, said = BROKEN[name]
    report = check_source(tmp_path, source)
    row = next(row for row in report.rows if row.check == name)
    assert not row.ok
    assert said in row.detail
    assert not report.ok


@pytest.mark.parametrize("fault", ALSO)
def test_other_faults_are_caught(tmp_path, fault):
    source, checks = ALSO[fault]
    report = check_source(tmp_path, source)
    assert {row.check for row in report.rows if not row.ok} == checks, [r for r in report.rows if not r.ok]


def test_a_file_can_be_checked_again_after_an_edit(tmp_path):
    assert not check_source(tmp_path, BROKEN["returns every layer"][0]).ok
    assert check_source(tmp_path, SOUND).ok


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no such file"), ("x = 1", "registers no method"), ("1 / 0", "ZeroDivisionError")]
)
def test_a_file_without_methods_is_bad_input(tmp_path, content, said):
    path = tmp_path / "nothing.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInput, match=said) as refusal:
        check(str(path))
    assert str(path) in str(refusal.value)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(BadInput, match="did you mean magnitude"):
        check("magnitud")
