"""GPTQ of one 4096 x 4096 layer against the work that it cannot avoid.

    python -m suites.benchmarks.gptq_layer [--width 4096] [--tokens 2048] [--threads 2] [--rounds 5]

Unavoidable: the product that makes the Hessian, one Cholesky factorization, one triangular inverse, and the updates
that each block of 128 columns gives to all later ones. Both sides are measured in the same run, one after the other in
each round, so that a slow minute of the machine falls on both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from harness import LayerProblem
from harness.compress.columns import inverse_factor, triangular_inverse
from harness.compress.statistics import add_gram, mirror
from methods.quantization.gptq import gptq

BLOCK = 128
GROUP = 128


class Clock:
    """Seconds by name, one number for each round."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, function: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = function()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def median(self, *names: str) -> float:
        return statistics.median(map(sum, zip(*(self.seconds[name] for name in names), strict=True)))


UNAVOIDABLE = ("Hessian product", "Cholesky", "triangular inverse", "lazy block updates")


def measure(clock: Clock, weight: Tensor, x: Tensor) -> None:
    """One round: each part that cannot be avoided, then the method as a user calls it."""
    n = weight.shape[1]
    total = clock.time("Hessian product", lambda: _gram(x))
    damped = mirror(total) + 0.01 * total.diagonal().mean() * torch.eye(n)
    lower = clock.time("Cholesky", lambda: torch.linalg.cholesky(damped))
    U = clock.time("triangular inverse", lambda: triangular_inverse(lower)).flip(0, 1)
    columns, errors = weight.T.clone(), 1e-3 * weight.T
    clock.time("lazy block updates", lambda: _lazy_updates(columns, errors, U))
    layer = _layer(weight, x)
    clock.time("gptq", lambda: gptq(layer, bits=4, group_size=GROUP))
    layer = _layer(weight, x)
    hessian = clock.time("gptq: Hessian", layer.hessian)
    clock.time("gptq: factor", lambda: inverse_factor(hessian))


def _gram(x: Tensor) -> Tensor:
    total = torch.zeros(x.shape[1], x.shape[1])
    add_gram(total, x, keep=0.0, scale=2 / len(x))
    return total


def _lazy_updates(columns: Tensor, errors: Tensor, U: Tensor) -> None:
    for a in range(0, len(columns) - BLOCK, BLOCK):
        b = a + BLOCK
        columns[b:].addmm_(U[a:b, b:].T, errors[a:b], alpha=-1)


def _layer(weight: Tensor, x: Tensor) -> LayerProblem:
    def inputs() -> Iterator[Tensor]:
        yield x

    return LayerProblem("layer", weight, generator=torch.Generator(), inputs=inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, value in (("width", 4096), ("tokens", 2048), ("threads", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(options.tokens, options.width, generator=generator) * torch.logspace(-1, 1, options.width)
    weight = torch.randn(options.width, options.width, generator=generator) / options.width**0.5
    clock = Clock()
    with torch.no_grad():
        for _ in range(options.rounds):
            measure(clock, weight, x)
    for name in UNAVOIDABLE:
        print(f"{name:24} {clock.median(name) * 1e3:8.0f} ms")
    limit, total = clock.median(*UNAVOIDABLE), clock.median("gptq")
    print(f"{'unavoidable, together':24} {limit * 1e3:8.0f} ms")
    rest = total - clock.median("gptq: Hessian", "gptq: factor")
    print(f"{'gptq':24} {total * 1e3:8.0f} ms, of which all but Hessian and factor {rest * 1e3:.0f} ms")
    ratios = [
        whole / sum(parts)
        for whole, *parts in zip(clock.seconds["gptq"], *(clock.seconds[name] for name in UNAVOIDABLE), strict=True)
    ]
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"{'ratio':24} {statistics.median(ratios):8.2f} (rounds: {each})")


if __name__ == "__main__":
    main()
