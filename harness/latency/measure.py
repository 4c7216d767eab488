"""One latency trial: both contenders put together, timed in interleaved rounds, and what is told of it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.engine.usage import device_peak, peak, reset_device_peak, reset_peak
from harness.latency import ceilings, linear, lm, machine
from harness.latency.energy import Metered
from harness.latency.rounds import Turn, interleave, plain, timer
from harness.latency.shapes import block_shapes
from harness.latency.threads import pinned
from harness.latency.timing import NOISY, Timing
from harness.packed import kernels
from harness.solution import Solution

if TYPE_CHECKING:
    from harness.tracks.latency import LatencyProblem

Make = Callable[[int, int], Any]
LOADED = (
    "Some trials were measured while others used the machine (their records say how much). What takes longer than a "
    "time slice is then interrupted and what is shorter is not: fast rows look faster than they are, and no interval "
    "shows it. `harness doctor` says when the machine is quiet."
)


@dataclass
class _Contenders:
    """Both turns, and what one phase of the method must do: bytes to read, floating operations (0: not known)."""

    method: Turn
    baseline: Turn
    phase: str
    stored: float
    operations: float
    layers: list[Any]
    size: dict[str, Any]
    memory: float | None = None


def measure(problem: LatencyProblem, make: Make) -> Solution:
    """Time the method's layers beside the baseline's. The solution's `extra` has the `timing` and the `size`."""
    fields = problem.fields
    with pinned(fields["threads"]) as places:
        found = ceilings.measured(fields["device"], fields["threads"])
        prepare = _products if fields["measure"] == "product" else _decoding
        pair = prepare(problem, make)
        method, baseline = (Metered(turn, fields["device"]) for turn in (pair.method, pair.baseline))
        rounds = interleave(method, baseline, lambda: ceilings.bandwidth(found), rounds=fields["rounds"])
    limit = linear.least_seconds(pair.stored, pair.operations, rounds.bandwidth, found.rate)
    timing = Timing(rounds, pair.phase, fields["rows"], limit, problem.signature, pair.memory)
    log = {
        "rounds": plain(rounds),
        "kernel": "; ".join(dict.fromkeys(layer.runs_on for layer in pair.layers)),
        "isa": kernels.isa(),
        "threads": fields["threads"],
        "processors": places,
        "ceilings": str(found),
        "bound": "arithmetic" if found.rate and pair.operations / found.rate >= limit.max() else "memory",
        "spread": timing.spread,
        "energy_joules": {"method": method.read(), "baseline": baseline.read()},
        "machine": machine.look().warnings,
    }
    return Solution(log=log, extra={"timing": timing, "size": pair.size})


def _products(problem: LatencyProblem, make: Make) -> _Contenders:
    fields = problem.fields
    shapes = block_shapes(fields["model"])
    inputs = linear.inputs_of(shapes, fields["rows"], fields["device"], problem.generator)
    method, baseline = (
        linear.contender(shapes, one, inputs, timer(fields["device"])) for one in (make, problem.baseline)
    )
    layers = method.blocks[0]
    stored = linear.stored_bytes(layers)
    weights = sum(m * n for m, n in shapes)
    size = {"bits_per_weight": 8 * stored / weights, "model_bytes": stored, "weights": weights}
    operations = linear.operations(layers, fields["rows"])
    return _Contenders(method, baseline, "product", stored, operations, layers, size)


def _decoding(problem: LatencyProblem, make: Make) -> _Contenders:
    fields = problem.fields

    def model_of(one: Make) -> Any:
        return lm.build(fields["model"], fields["layers"], one, problem.generator, fields["device"])

    method, memory = _alone(fields, problem.generator, lambda: model_of(make))
    prompt, device = method.prompt, fields["device"]
    baseline = lm.Decoding(model_of(problem.baseline), prompt, fields["tokens"], timer(device))
    layers = lm.compressed(method.model)
    model: Any = method.model
    body = [layer for layer in layers if layer is not model.get_output_embeddings()]
    weights = sum(layer.out_features * layer.in_features for layer in body)
    size = {
        "bits_per_weight": 8 * linear.stored_bytes(body) / weights,
        "model_bytes": lm.tensor_bytes(model),
        "weights": weights,
    }
    stored, operations = linear.stored_bytes(layers), linear.operations(layers, fields["rows"])
    return _Contenders(method, baseline, "token", stored, operations, body, size, memory)


def _alone(
    fields: Mapping[str, Any], generator: torch.Generator, model_of: Callable[[], Any]
) -> tuple[lm.Decoding, float | None]:
    """The method's model before there is another one, and the memory that it and its first turn add."""
    lm.skeleton(fields["model"], layers=1)  # whose imports stay
    gc.collect()
    reset_peak()
    reset_device_peak()
    before = peak()
    on_device = device_peak() or 0.0
    model = model_of()
    prompt = lm.prompt_of(model, fields["rows"], fields["prompt"], generator, fields["device"])
    decoding = lm.Decoding(model, prompt, fields["tokens"], timer(fields["device"]))
    gc.collect()
    known = reset_peak()  # what was held while the model was put together is not part of running it
    reset_device_peak()
    decoding()
    if fields["device"].startswith("cuda"):
        return decoding, (device_peak() or 0.0) - on_device
    return decoding, peak() - before if known else None


def remarks(log: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(notes on the whole table, notes on a row) from a trial's log."""
    general = []
    if not any(one.get("value") is not None for one in log.get("energy_joules", {}).values()):
        general.append("Energy: missing; neither RAPL nor NVML can be read on this machine.")
    if log.get("machine"):
        general.append(LOADED)
    row = [f"Kernel: {log['kernel']}."]
    if log["bound"] == "arithmetic":
        row.append("Its limit is the arithmetic, not the memory.")
    if log["spread"] > NOISY:
        row.append(f"Its rounds vary by {log['spread']:.0%}: a noisy machine; read the interval, not the figure.")
    return general, row
