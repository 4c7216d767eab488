"""What every method of the compress track must do, checked on synthetic problems of a few kilobytes.

A per-layer method is given a random layer with correlated calibration inputs; a whole-model method a tiny random Llama,
and for odd shapes a small network of no known family.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.check import Broken, Check
from harness.compress import samples, view
from harness.compress.fisher import compressed_layers
from harness.compress.problem import CompressProblem, LayerProblem
from harness.compress.threads import threads
from harness.compress.walk import compress_layers
from harness.errors import BadInput, TrialFailed
from harness.packed import PackedWeight, load, save
from harness.randomness import random_state, restored_random_state, seed_everything
from harness.registry import Entry
from harness.solution import Solution

Problem = LayerProblem | CompressProblem
IDENTITY = {"bits": 16, "sparsity": 0.0, "ratio": 1.0}
"""Parameters by the names the field gives them, and the value at which nothing is compressed."""
SLACK = 64
"""Bytes that a file may spend on a tensor beyond its own."""


def every_parameter_has_a_default(entry: Entry) -> str:
    """The defaults are the paper's; without one the method cannot be run by its name alone."""
    if missing := [name for name, parameter in entry.params.items() if parameter.required]:
        raise Broken(f"parameter {missing[0]} has no default; give it the paper's")
    return f"{len(entry.params)} parameters"


def returns_every_layer(entry: Entry) -> str:
    """Each layer comes back as a packed weight of its shape, with finite values."""
    expected = _weights(_problem(entry))
    solution = _solve(entry, _problem(entry))
    _require_finite(solution, {name: tuple(weight.shape) for name, weight in expected.items()})
    bits = sum(packed.bits for packed in solution.packed.values())
    count = sum(weight.numel() for weight in expected.values())
    return f"{len(expected)} layers, {bits / count:.3f} bits per weight"


def same_seed_gives_the_same_result(entry: Entry) -> str:
    """Two runs under one seed agree bit for bit, whatever state the global generators are in."""
    with restored_random_state():
        seed_everything(1)
        once = _solve(entry, _problem(entry))
        seed_everything(2)
        again = _solve(entry, _problem(entry))
    _require_equal(once, again, "differs between two runs with one seed; draw from the problem's generator only")
    return "two runs agree bit for bit"


def global_random_state_is_left_alone(entry: Entry) -> str:
    """torch, numpy and random hold the state they had."""
    problem = _problem(entry)
    with restored_random_state():
        before = random_state()
        _solve(entry, problem)
        after = random_state()
    if touched := [name for name in before if before[name] != after[name]]:
        raise Broken(f"it changed the global random state of {' and '.join(touched)}")
    return "torch, numpy and random untouched"


def inputs_are_not_modified(entry: Entry) -> str:
    """The layer's weight and the calibration data hold what they held."""
    problem = _problem(entry)
    given = _given(problem)
    before = {name: tensor.clone() for name, tensor in given.items()}
    _solve(entry, problem)
    if modified := [name for name, tensor in given.items() if not torch.equal(tensor, before[name])]:
        raise Broken(f"it modified its input: {', '.join(modified)}")
    return f"{len(given)} tensors unchanged"


def saving_and_loading_changes_nothing(entry: Entry) -> str:
    """The stored tensors are all there is: read back from a file they give identical outputs."""
    solution = _solve(entry, _problem(entry))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "solution.safetensors"
        save(path, solution)
        loaded = load(path)
    _require_equal(solution, loaded, "is not what it was when saved and loaded")
    return f"{len(solution.packed) + len(solution.changed)} entries"


def counted_size_is_the_files(entry: Entry) -> str:
    """The bits counted are the bytes of the tensors that a file keeps, and nothing hides beside them."""
    solution = _solve(entry, _problem(entry))
    for name, packed in solution.packed.items():
        held = 8 * sum(tensor.nbytes for tensor in packed.tensors().values())
        if packed.bits != held:
            raise Broken(f"{name} counts {packed.bits} bits and stores {held}")
    counted = sum(packed.bits for packed in solution.packed.values()) // 8
    counted += sum(tensor.nbytes for tensor in solution.changed.values())
    tensors = sum(len(packed.tensors()) for packed in solution.packed.values()) + len(solution.changed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "solution.safetensors"
        save(path, solution)
        content = path.read_bytes()
    payload = len(content) - 8 - int.from_bytes(content[:8], "little")
    if abs(payload - counted) > SLACK * tensors:
        raise Broken(f"counts {counted} bytes; the file keeps {payload}")
    return f"{counted} bytes counted, {payload} in the file"


def identity_setting_gives_the_input_back(entry: Entry) -> str:
    """At 16 bits, zero sparsity or full rank the weights are the checkpoint's."""
    settings = {name: value for name, value in IDENTITY.items() if _accepts(entry, name, value)}
    for name, value in settings.items():
        original = _weights(_problem(entry))
        solution = _solve(entry, _problem(entry), **{name: value})
        for layer, packed in solution.packed.items():
            if not torch.equal(packed.dequantize(), original[layer]):
                raise Broken(f"{name}={value} changes {layer}")
        if solution.changed:
            raise Broken(f"{name}={value} changes {next(iter(solution.changed))}")
    return ", ".join(f"{name}={value}" for name, value in settings.items()) or "no bits, sparsity or ratio to set"


def odd_shapes_are_handled_or_refused(entry: Entry) -> str:
    """One row, a dead input, an all-zero row, a width that no group size divides: finite values, or BadInput."""
    seen = []
    for title, problem in _odd_problems(entry):
        shapes = {name: tuple(weight.shape) for name, weight in _weights(problem).items()}
        try:
            _require_finite(_solve(entry, problem), shapes)
            seen.append(f"{title}: handled")
        except BadInput as refusal:
            if not any(name in str(refusal) for name in shapes):
                raise Broken(f"{title}: the refusal does not name the layer: {refusal}") from refusal
            seen.append(f"{title}: refused")
        except Broken as broken:
            raise Broken(f"{title}: {broken}") from broken
        except Exception as error:
            raise Broken(f"{title}: raised {type(error).__name__}, not BadInput: {error}") from error
    return "; ".join(seen)


def non_finite_weights_are_refused(entry: Entry) -> str:
    """A weight that holds NaN or infinity is refused, with the tensor's name."""
    for value in (float("nan"), float("inf")):
        problem = samples.network_problem()
        problem.model.get_parameter("second.weight")[0, 3] = value
        try:
            _solve(entry, problem)
        except (BadInput, TrialFailed) as refusal:
            if "second" not in str(refusal) or "finite" not in str(refusal):
                raise Broken(f"the refusal of {value} in layer second does not say so: {refusal}") from refusal
        else:
            raise Broken(f"it accepted a weight of {value} in layer second; refuse it and name the layer")
    return "NaN and infinity"


CHECKS: tuple[Check, ...] = (
    every_parameter_has_a_default,
    returns_every_layer,
    same_seed_gives_the_same_result,
    global_random_state_is_left_alone,
    inputs_are_not_modified,
    saving_and_loading_changes_nothing,
    counted_size_is_the_files,
    identity_setting_gives_the_input_back,
    odd_shapes_are_handled_or_refused,
    non_finite_weights_are_refused,
)


def _problem(entry: Entry) -> Problem:
    return samples.layer_problem() if _per_layer(entry) else samples.llama_problem()


def _odd_problems(entry: Entry) -> Iterator[tuple[str, Problem]]:
    dead = samples.correlated(96, samples.WIDTH)
    dead[:, 5] = 0
    if _per_layer(entry):
        empty = samples.normal(24, samples.WIDTH, seed=1)
        empty[3] = 0
        yield "one row", samples.layer_problem(samples.normal(1, samples.WIDTH, seed=1))
        yield "a dead input", samples.layer_problem(inputs=dead)
        yield "an all-zero row", samples.layer_problem(empty)
        yield "130 inputs", samples.layer_problem(samples.normal(24, 130, seed=1))
    else:
        empty_row = samples.network_problem()
        empty_row.model.get_parameter("first.weight")[3] = 0
        yield "one row", samples.network_problem(outputs=1)
        yield "a dead input", samples.network_problem(x=dead)
        yield "an all-zero row", empty_row
        yield "130 inputs", samples.network_problem(130)


def _solve(entry: Entry, problem: Problem, **params: Any) -> Solution:
    """With one thread: the problems are tiny. What is made of them is then used with all."""
    with threads(1):
        if isinstance(problem, LayerProblem):
            return Solution({problem.name: entry(problem, **params)})
        if _per_layer(entry):
            return compress_layers(problem, lambda layer: entry(layer, **params))
        return entry(problem, **params)


def _per_layer(entry: Entry) -> bool:
    return entry.input_type == "LayerProblem"


def _accepts(entry: Entry, name: str, value: Any) -> bool:
    if name not in entry.params:
        return False
    with contextlib.suppress(BadInput):
        entry.params[name].check(value, entry.name)
        return True
    return False


def _weights(problem: Problem) -> dict[str, Tensor]:
    """Copies of the weights (m, n) that are to be compressed, by layer."""
    if isinstance(problem, LayerProblem):
        return {problem.name: problem.weight.clone()}
    return {name: view.matrix(layer).clone() for name, layer in compressed_layers(problem).items()}


def _given(problem: Problem) -> dict[str, Tensor]:
    """What a method may read and must not write."""
    if isinstance(problem, LayerProblem):
        return {"weight": problem.weight, **{f"inputs {i}": x for i, x in enumerate(problem.inputs())}}
    batches = enumerate(problem.calibration)
    return {f"calibration {i} {key}": tensor for i, batch in batches for key, tensor in batch.items()}


def _require_finite(solution: Solution, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if solution.packed.keys() != shapes.keys():
        odd = sorted(solution.packed.keys() ^ shapes.keys())
        raise Broken(f"it must return the layers it was given and no other; {odd[0]} is in one and not in the other")
    for name, packed in solution.packed.items():
        if not isinstance(packed, PackedWeight):
            raise Broken(f"{name} is a {type(packed).__name__}; return a PackedWeight")
        if tuple(packed.shape) != shapes[name] or tuple(packed.dequantize().shape) != shapes[name]:
            raise Broken(f"{name} has shape {packed.shape}; the layer's is {shapes[name]}")
        if not packed.dequantize().isfinite().all():
            raise Broken(f"{name} has values that are not finite")


def _require_equal(one: Solution, other: Solution, what: str) -> None:
    if one.packed.keys() != other.packed.keys() or one.changed.keys() != other.changed.keys():
        raise Broken(f"the set of compressed layers {what}")
    for name, packed in one.packed.items():
        x = samples.normal(5, packed.shape[1], seed=6)
        if not torch.equal(packed.dequantize(), other.packed[name].dequantize()):
            raise Broken(f"{name} {what}")
        if not torch.equal(packed.matmul(x), other.packed[name].matmul(x)):
            raise Broken(f"the output of {name} {what}")
    for name, tensor in one.changed.items():
        if tensor.dtype != other.changed[name].dtype or not torch.equal(tensor, other.changed[name]):
            raise Broken(f"{name} {what}")
