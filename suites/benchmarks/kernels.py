"""CPU products with packed weights beside their peers and beside the memory bandwidth of the same run.

    python -m suites.benchmarks.kernels [--shapes 4096x4096 11008x4096] [--threads 1 2] [--batch 1] [--rounds 7]
                                        [--write results/kernels-cpu]

Every contender multiplies the same activations with its own copies of a weight, enough of them that none is still in a
cache when its turn comes again. A round runs all contenders one after the other, every second one backwards, so that a
slow minute of the machine falls on all; the shortest call of a turn counts. Ratios are taken inside a round, and their
median is shown with the smallest and the largest. "of limit" is the time that reading the stored bytes takes at the
best bandwidth of several readers in that round. "of peak", for uniform codes and rounded activations, is the time that
their products take where nothing but multiplying and adding from registers is done, measured in that round too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import harness_kernels
import numpy as np
import torch
from torch import Tensor

from harness.engine.environment import cpu
from harness.packed import PackedWeight, unpack
from suites.benchmarks.weights import GROUP, WEIGHTS

READERS = [r for r in itertools.product((1, 2, 4, 8), (0, 1024, 4096), (False, True)) if r[1] or not r[2]]

Call = Callable[[Tensor, Any], Any]


@dataclass
class Contender:
    name: str
    copies: list[Any]
    stored_bytes: int
    call: Call
    products: int = 0
    """Of 8-bit integers in one row, where that is what it computes."""
    turn: int = 0

    def time(self, x: Tensor, calls: int) -> float:
        """Seconds of the shortest of some products, each on the next copy of the weight.

        The shortest: on a machine that is shared, the others were interrupted.
        """
        shortest = math.inf
        for _ in range(calls):
            start = time.perf_counter()
            self.call(x, self.copies[self.turn % len(self.copies)])
            shortest = min(shortest, time.perf_counter() - start)
            self.turn += 1
        return shortest


def ours(m: int, n: int, cache: int) -> list[Contender]:
    found = []
    for name, (make, ways) in WEIGHTS.items():
        first = make(m, n)
        size = sum(t.nbytes for t in first.tensors().values())
        # Copies of one weight: some formats take long to make.
        copies = [first, *(_copy(first) for _ in range(max(1, -(-cache // size) - 1)))]
        for way in ways:

            def call(x: Tensor, w: Any, way: Any = way) -> Tensor:
                return harness_kernels.matmul(w, x, activations=way)

            integers = m * n if way == "int8" and first.kind in ("uniform", "ternary") else 0
            found.append(Contender(f"{name}, {way}", copies, size, call, integers))
    return found


def _copy(weight: PackedWeight) -> PackedWeight:
    return unpack(weight.kind, {name: t.clone() for name, t in weight.tensors().items()}, weight.meta())


def peers(m: int, n: int, cache: int) -> list[Contender]:
    def dense(dtype: torch.dtype) -> Callable[[], Tensor]:
        return lambda: torch.randn(m, n).to(dtype)

    def int4() -> tuple[Tensor, Tensor]:
        codes = torch.ops.aten._convert_weight_to_int4pack_for_cpu(torch.randint(0, 16, (m, n), dtype=torch.int32), 1)
        return codes, torch.rand(n // GROUP, m, 2).bfloat16()

    def int8() -> tuple[Tensor, Tensor]:
        return torch.randint(-128, 128, (m, n), dtype=torch.int8), torch.rand(m).bfloat16()

    def int4_call(x: Tensor, w: Any) -> Tensor:
        return torch.ops.aten._weight_int4pack_mm_for_cpu(x.bfloat16(), w[0], GROUP, w[1])

    def int8_call(x: Tensor, w: Any) -> Tensor:
        return torch.ops.aten._weight_int8pack_mm(x.bfloat16(), *w)

    found = [
        _contender("torch fp32", dense(torch.float32), torch.nn.functional.linear, cache),
        _contender(
            "torch bf16", dense(torch.bfloat16), lambda x, w: torch.nn.functional.linear(x.bfloat16(), w), cache
        ),
        _contender("torch int4", int4, int4_call, cache),
        _contender("torch int8", int8, int8_call, cache),
    ]
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        return found
    for bits, level in ((4, 4), (4, 1), (2, 4)):
        found.append(
            _contender(
                f"onnxruntime {bits}-bit, level {level}",
                lambda bits=bits, level=level: _session(m, n, bits, level),  # type: ignore[misc]
                lambda x, s: s.run(None, {"x": x.numpy()}),
                cache,
                size=m * n * bits // 8 + m * n // GROUP * 4,
            )
        )
    return found


def _session(m: int, n: int, bits: int, level: int) -> Any:
    """One MatMulNBits node with its own weight, on as many threads as torch uses."""
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (m, n // GROUP, GROUP * bits // 8), dtype=np.uint8)
    scales = rng.random(m * (n // GROUP), dtype=np.float32)
    names = {"K": n, "N": m, "bits": bits, "block_size": GROUP, "accuracy_level": level}
    node = helper.make_node("MatMulNBits", ["x", "codes", "scales"], ["y"], domain="com.microsoft", **names)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "product",
        [value("x", onnx.TensorProto.FLOAT, ["rows", n])],
        [value("y", onnx.TensorProto.FLOAT, ["rows", m])],
        [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scales, "scales")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _contender(name: str, make: Callable[[], Any], call: Call, cache: int, size: int | None = None) -> Contender:
    first = make()
    if size is None:
        size = sum(t.nbytes for t in (first if isinstance(first, tuple) else (first,)))
    count = max(2, -(-cache // size))
    rest = [make() if size > 1 << 25 else _clone(first, make) for _ in range(count - 1)]
    return Contender(name, [first, *rest], size, call)


def _clone(first: Any, make: Callable[[], Any]) -> Any:
    if isinstance(first, tuple):
        return tuple(t.clone() for t in first)
    return first.clone() if isinstance(first, Tensor) else make()


def bandwidth(buffer: Tensor, piece: int) -> float:
    """Bytes per second, the best of several readers and of several pieces as long as a weight."""
    best = 0.0
    for reader, part in itertools.product(READERS, buffer.split(piece)):
        start = time.perf_counter()
        harness_kernels.native().read(part, *reader)
        best = max(best, part.nbytes / (time.perf_counter() - start))
    return best


def peak() -> float:
    """Products of 8-bit integers per second of one thread, multiplied and added up in registers."""
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        best = max(best, harness_kernels.native().multiply(10) / (time.perf_counter() - start))
    return best


def measure(m: int, n: int, batch: int, threads: int, rounds: int, cache: int, only: str) -> dict[str, Any]:
    """Seconds of every contender in every round, and the machine's limits in them."""
    torch.set_num_threads(threads)
    harness_kernels.set_threads(threads)
    x = torch.randn(batch, n)
    buffer = torch.randint(0, 256, (cache,), dtype=torch.uint8)
    contenders = [
        c for c in (*ours(m, n, cache), *peers(m, n, cache)) if not only or any(w in c.name for w in only.split(";"))
    ]
    seconds: dict[str, list[float]] = {c.name: [] for c in contenders}
    speeds, peaks = [], []
    for number in range(rounds + 1):
        speed = bandwidth(buffer, m * n // 2)
        for contender in contenders if number % 2 else reversed(contenders):
            taken = contender.time(x, max(2, min(20, int(0.02 * speed / contender.stored_bytes))))
            if number:
                seconds[contender.name].append(taken)
        if number:
            speeds.append(max(speed, bandwidth(buffer, m * n // 2)))
            peaks.append(threads * peak())
    rows = {c.name: {"bytes": c.stored_bytes, "products": batch * c.products, "s": seconds[c.name]} for c in contenders}
    setting = {"shape": f"{m}x{n}", "batch": batch, "threads": threads, "isa": harness_kernels.isa()}
    return {**setting, "bytes_per_s": speeds, "products_per_s": peaks, "rows": rows}


def table(run: dict[str, Any]) -> str:
    """The run in Markdown."""
    rows, speeds, peaks = run["rows"], run["bytes_per_s"], run["products_per_s"]
    lines = [
        f"{run['shape']}, {run['batch']} rows, {run['threads']} threads, {run['isa']}: "
        f"reads {max(speeds) / 1e9:.1f} GB/s, multiplies {max(peaks) / 1e9:.1f} G/s\n",
        f"| {'weight, activations':32} | {'us':>7} | {'x fp32':>20} | {'% of limit':>16} | {'% of peak':>14} |",
        f"| {'---':32} | {'--:':>7} | {'--:':>20} | {'--:':>16} | {'--:':>14} |",
    ]
    for name, row in rows.items():
        times = row["s"]
        base = rows.get("torch fp32", row)["s"]
        ratios = _range([b / t for b, t in zip(base, times, strict=True)], 2)
        limit = _range([100 * row["bytes"] / s / t for s, t in zip(speeds, times, strict=True)], 0)
        most = _range([100 * row["products"] / p / t for p, t in zip(peaks, times, strict=True)], 0)
        middle = f"{1e6 * statistics.median(times):7.0f}"
        lines.append(f"| {name:32} | {middle} | {ratios:>20} | {limit:>16} | {most if row['products'] else '':>14} |")
    return "\n".join(lines)


def _range(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", nargs="+", default=["4096x4096", "11008x4096"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cache", type=int, default=256, help="MiB that the copies of a weight fill together")
    parser.add_argument("--only", default="", help="run contenders whose name has one of these words; separated by ;")
    parser.add_argument("--write", type=Path, help="folder for table.md and table.json")
    options = parser.parse_args()
    torch.manual_seed(0)
    runs = []
    for shape, threads in itertools.product(options.shapes, options.threads):
        m, n = map(int, shape.split("x"))
        with torch.no_grad():
            runs.append(measure(m, n, options.batch, threads, options.rounds, options.cache << 20, options.only))
        print(f"\n{table(runs[-1])}", flush=True)
    if options.write:
        write(options.write, runs)


def write(folder: Path, runs: list[dict[str, Any]]) -> None:
    """table.json with every time, and table.md."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = {**cpu(), "cores": os.cpu_count(), "load": os.getloadavg()[0], "date": date.today().isoformat()}
    (folder / "table.json").write_text(json.dumps({"machine": machine, "runs": runs}, indent=1) + "\n")
    words = (
        f"CPU products with packed weights, {machine['date']}: {machine['cpu']} with {machine['simd']}, "
        f"{machine['cores']} cores, other work running beside it: {machine['load']:.1f} processes on average. "
        "How to read it: `suites/benchmarks/kernels.py`."
    )
    (folder / "table.md").write_text("\n\n".join([words, *map(table, runs)]) + "\n")


if __name__ == "__main__":
    main()
