"""The GPU kernels by name: what each computes, random calls of it to check, and the calls that are timed.

A family of kernels is a module of this package that registers them; `kernels()` imports every module, so that the next
family is one file. The checks, the benchmark and the tests walk over what is registered.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

import harness_kernels.gpu as package

Language = Literal["CUDA", "Triton"]
NOT_FAMILIES = ("emulate", "launch", "registry", "checks", "bench", "peers", "weights")
"""Modules without kernels; those that begin with `triton_` hold the sources of others and need Triton itself."""


@dataclass(frozen=True)
class Case:
    """One call: `run(*inputs, out)` fills `out`.

    `exact()` is what it must give, and the largest error that is allowed for each number, both float64: 0 means bit for
    bit. `moved` are the bytes that must be read or written at least, `operations` multiplications and additions.
    """

    inputs: Sequence[Any]
    out: Tensor
    run: Callable[..., object]
    exact: Callable[[], tuple[Tensor, Tensor]]
    moved: int
    operations: int
    sizes: Callable[[], Tensor] | None = None
    """Of a product: by output, the sum of the magnitudes of weights times activations, float64."""


@dataclass(frozen=True)
class Kernel:
    """`make(generator, **shape)` gives a Case on the generator's device.

    `formats`: in words, what it reads. `checks`: odd shapes, of which the first ones are cheap. `timed`: by label the
    shapes of the benchmark; `compared` names the peers of `harness_kernels.gpu.peers` that do the same work.
    """

    name: str
    language: Language
    formats: str
    make: Callable[..., Case]
    checks: Sequence[Mapping[str, Any]]
    timed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    compared: Sequence[str] = ()


LARGE = {"8192x8192": {"m": 8192, "n": 8192}, "28672x8192": {"m": 28672, "n": 8192}}
"""Weights of the benchmark: outputs x inputs."""
_kernels: dict[str, Kernel] = {}


def register(kernel: Kernel) -> None:
    if kernel.name in _kernels:
        raise TypeError(f"GPU kernel {kernel.name!r} is registered twice")
    _kernels[kernel.name] = kernel


def kernels() -> list[Kernel]:
    """All of them, in the order of their families and of their registration."""
    for module in sorted(found.name for found in pkgutil.iter_modules(package.__path__)):
        if module not in NOT_FAMILIES and not module.startswith("triton_"):
            importlib.import_module(f"{package.__name__}.{module}")
    return list(_kernels.values())


def half_ulp(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """How far the nearest number of that dtype can be, float64."""
    info = torch.finfo(dtype)
    return exact.abs().clamp(min=info.tiny) * (info.eps / 2)


def product_case(
    inputs: Sequence[Any],
    x: Tensor,
    m: int,
    run: Callable[..., object],
    weight: Callable[[], tuple[Tensor, Tensor, Tensor]],
) -> Case:
    """A product of x (rows, n) with a weight (m, n): its sums are float32, only the result is rounded to x's dtype.

    `weight()` gives, float64, the weight, the magnitudes of its terms (where it is a difference of codes and zero
    points those are larger), and its own magnitudes (larger where it is a product).
    """

    def exact() -> tuple[Tensor, Tensor]:
        values, terms, _ = weight()
        product = x.double() @ values.T
        return product, half_ulp(product, x.dtype) + SUMS * (x.double().abs() @ terms.T)

    def sizes() -> Tensor:
        return x.double().abs() @ weight()[2].T

    moved = sum(t.nbytes for t in inputs if isinstance(t, Tensor)) + len(x) * m * x.element_size()
    return Case(inputs, x.new_empty(len(x), m), run, exact, moved, 2 * len(x) * m * x.shape[1], sizes)


SUMS = 2.0**-20
"""Of the sum of the magnitudes that are added: what float32 sums of a few thousand numbers, and those of tensor cores,
which cut off what they shift out, may be wrong by."""


def random_bytes(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator, device=generator.device)


def random_floats(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device).to(dtype)


def random_scales(generator: torch.Generator, *shape: int) -> Tensor:
    """Float16 over two orders of magnitude."""
    return (torch.rand(shape, generator=generator, device=generator.device) * 5 - 4).exp().half()
