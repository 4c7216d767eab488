"""Every GPU kernel against its float64 reference, on random input of odd shapes, with outputs that hold NaNs before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness_kernels.gpu.registry import Case, Kernel


@dataclass(frozen=True)
class Verdict:
    """What became of one shape of one kernel: `wrong` is empty, or what is wrong in words."""

    kernel: str
    shape: str
    error: float
    wrong: str

    @property
    def ok(self) -> bool:
        return not self.wrong


def check(kernels: Sequence[Kernel], device: str, *, seed: int = 0, most: int | None = None) -> Iterator[Verdict]:
    """A verdict for each kernel and shape (`most` shapes a kernel); an exception in a kernel is one, too."""
    for kernel in kernels:
        for number, shape in enumerate(list(kernel.checks)[:most]):
            generator = torch.Generator().manual_seed(seed + number)
            words = ", ".join(f"{key} {_word(value)}" for key, value in shape.items())
            try:
                error, wrong = held(kernel.make(generator, **shape), device)
            except Exception as failure:
                error, wrong = float("nan"), f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]}"
            yield Verdict(kernel.name, words, error, wrong)


def held(case: Case, device: str) -> tuple[float, str]:
    """(largest error over what is allowed, what is wrong) of a case that was made on the CPU, run on a device."""
    exact, allowed = case.exact()
    case = moved(case, device)
    poison(case.out)
    case.run(*case.inputs, case.out)
    if case.out.is_cuda:
        torch.cuda.synchronize(case.out.device)
    return compare(case.out.cpu(), exact, allowed)


def moved(case: Case, device: str) -> Case:
    return replace(case, inputs=[_to(value, device) for value in case.inputs], out=case.out.to(device))


def poison(out: Tensor) -> None:
    """NaN everywhere."""
    out.view(-1).view(torch.uint8).fill_(0xFF)


def compare(out: Tensor, exact: Tensor, allowed: Tensor) -> tuple[float, str]:
    """(largest error over what is allowed, what is wrong)."""
    if out.shape != exact.shape:
        return float("nan"), f"has shape {tuple(out.shape)}, not {tuple(exact.shape)}"
    error = (out.double() - exact).abs()
    missed = ~(error <= allowed)
    if not bool(missed.any()):
        return float((error / allowed.clamp(min=1e-300)).max()) if error.numel() else 0.0, ""
    at = tuple(int(i) for i in missed.nonzero()[0])
    return float("nan"), (
        f"{int(missed.sum())} of {out.numel()} numbers are off, the first at {at}: {float(out[at]):.7g} for "
        f"{float(exact[at]):.7g}, allowed is an error of {float(allowed[at]):.2g}"
    )


def _to(value: Any, device: str) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_to(one, device) for one in value)
    return value.to(device) if isinstance(value, Tensor) else value


def _word(value: Any) -> str:
    return str(value).removeprefix("torch.")
