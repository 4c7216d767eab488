"""Times of the GPU kernels beside their peers and beside what the same machine moves and multiplies in the same run.

Every contender works on copies of its input, enough of them that none is still in the L2 cache when its turn comes
again. A round runs all contenders one after the other, every second one backwards, between two CUDA events each.
Ratios are taken inside a round; the median is shown. Where a call can be captured, its launches are replayed as a CUDA
graph, so that the host's part of a launch is not measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from harness_kernels.gpu import peers
from harness_kernels.gpu.checks import poison
from harness_kernels.gpu.registry import Case, Kernel

CALLS, WARM_UP, COPIED, PRODUCT = 8, 2, 1 << 30, 8192
"""Calls of a turn, turns that do not count, bytes of the measured copy, and the side of the measured bf16 product."""


@dataclass
class Contender:
    """Calls that do one piece of work on different copies of its input."""

    name: str
    calls: Sequence[Callable[[], object]]
    moved: int
    operations: int
    times: list[float] = field(default_factory=list)
    graph: Any = None

    def prepare(self) -> None:
        """Compile, warm up, and capture the calls of a turn if they can be captured."""
        for call in self.calls:
            call()
        torch.cuda.synchronize()
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._turn()
            self.graph = graph
        except RuntimeError:  # a call that waits or copies from the host
            torch.cuda.synchronize()
            self.graph = None

    def time(self) -> float:
        """Seconds of one call, the mean of a turn."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self.graph.replay() if self.graph is not None else self._turn()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / self._count

    @property
    def _count(self) -> int:
        return max(CALLS, len(self.calls))

    def _turn(self) -> None:
        for number in range(self._count):
            self.calls[number % len(self.calls)]()


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds of a call, its limits, and ratios of peers' times to its own."""

    work: str
    name: str
    seconds: float
    moved: int
    operations: int
    of_copy: float
    of_rate: float
    ratios: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "ratios": dict(self.ratios)}


def measure(kernels: Sequence[Kernel], *, rounds: int = 20, device: str = "cuda") -> Iterator[Row]:
    """A row for each timed shape of each kernel; those of one shape and their peers share their rounds."""
    for work, group in _works(kernels).items():
        cache = 2 * torch.cuda.get_device_properties(device).L2_cache_size
        contenders, compared = _contenders(group, cache, device)
        ceilings = [_copy(device), _product(device)]
        everyone = [*contenders, *(p for p in compared.values()), *ceilings]
        for contender in everyone:
            contender.prepare()
        _run(everyone, rounds)
        for (kernel, _), contender in zip(group, contenders, strict=True):
            chosen = {name: peer for name, peer in compared.items() if name in kernel.compared}
            yield _row(work, contender, chosen, *ceilings)
        del contenders, compared, ceilings, everyone
        torch.cuda.empty_cache()


def _works(kernels: Sequence[Kernel]) -> dict[str, list[tuple[Kernel, Mapping[str, Any]]]]:
    """By label the kernels that do that work, with their shapes."""
    works: dict[str, list[tuple[Kernel, Mapping[str, Any]]]] = {}
    for kernel in kernels:
        for label, shape in kernel.timed.items():
            works.setdefault(label, []).append((kernel, shape))
    return works


def _contenders(
    group: Sequence[tuple[Kernel, Mapping[str, Any]]], cache: int, device: str
) -> tuple[list[Contender], dict[str, Contender]]:
    generator = torch.Generator(device).manual_seed(0)
    found, compared = [], {}
    for kernel, shape in group:
        case = kernel.make(generator, **shape)
        found.append(Contender(kernel.name, _rotated(case, cache), case.moved, case.operations))
        for name in kernel.compared:
            if name not in compared:
                made = peers.PEERS[name](generator, shape)
                if made is not None:
                    compared[name] = Contender(name, _rotated(made, cache), made.moved, made.operations)
    return found, compared


def _rotated(case: Case, cache: int) -> list[Callable[[], object]]:
    """Calls on copies of the case that together are larger than the cache."""
    copies = [case, *(_copied(case) for _ in range(-(-cache // max(case.moved, 1))))]
    for copy in copies:
        poison(copy.out)
    return [lambda c=copy: c.run(*c.inputs, c.out) for copy in copies]  # type: ignore[misc]


def _copied(case: Case) -> Case:
    return replace(case, inputs=[_clone(value) for value in case.inputs], out=case.out.clone())


def _clone(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_clone(one) for one in value)
    return value.clone() if isinstance(value, Tensor) else value


def _copy(device: str) -> Contender:
    """A device-to-device copy, bytes read and bytes written."""
    pairs = [torch.zeros(2, COPIED, dtype=torch.uint8, device=device) for _ in range(2)]
    return Contender("copy", [lambda p=pair: p[0].copy_(p[1]) for pair in pairs], 2 * COPIED, 0)  # type: ignore[misc]


def _product(device: str) -> Contender:
    """cuBLAS's bf16 product of two large random matrices."""
    pairs = [torch.randn(2, PRODUCT, PRODUCT, device=device).bfloat16() for _ in range(2)]
    out = torch.empty_like(pairs[0][0])
    calls = [lambda p=pair: torch.mm(p[0], p[1], out=out) for pair in pairs]  # type: ignore[misc]
    return Contender("matrix product", calls, 3 * out.nbytes, 2 * PRODUCT**3)


def _run(contenders: Sequence[Contender], rounds: int) -> None:
    for number in range(WARM_UP + rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            seconds = contender.time()
            if number >= WARM_UP:
                contender.times.append(seconds)


def _row(work: str, one: Contender, compared: Mapping[str, Contender], copy: Contender, product: Contender) -> Row:
    def share(limit: Contender, amount: int, whole: int) -> float:
        """Of the limit's rate in the same round."""
        paired = zip(limit.times, one.times, strict=True)
        return statistics.median(amount / whole * of_limit / own for of_limit, own in paired)

    ratios = {
        name: statistics.median(theirs / own for theirs, own in zip(peer.times, one.times, strict=True))
        for name, peer in compared.items()
    }
    return Row(
        work,
        one.name,
        statistics.median(one.times),
        one.moved,
        one.operations,
        share(copy, one.moved, copy.moved),
        share(product, one.operations, product.operations),
        ratios,
    )
