"""Which kernel runs a packed weight: the compiled ones of `harness_kernels` where they are installed, else torch.

The choice is "fastest" (floating activations, results as the reference's up to float32 rounding), "int8" (activations
rounded to 8 bits where a kernel does so: faster, not the same numbers) or "reference" (always plain torch). The
environment variable HARNESS_KERNELS sets the default; a layer's attribute `kernel` overrides it.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from harness.errors import BadInput
from harness.packed.base import PackedWeight

Choice = Literal["fastest", "int8", "reference"]
REFERENCE = "torch reference"


def default() -> Choice:
    """What HARNESS_KERNELS says, by default "fastest". Raises BadInput for a word that is none of the three."""
    return checked(os.environ.get("HARNESS_KERNELS") or "fastest", "HARNESS_KERNELS")


def checked(choice: str, field: str) -> Choice:
    """The choice, or BadInput naming where it came from."""
    if choice not in get_args(Choice):
        raise BadInput(f"{field}: is {choice!r}; accepted are {', '.join(get_args(Choice))}")
    return choice  # type: ignore[return-value]


def run(weight: PackedWeight, x: Tensor, choice: Choice | None = None) -> Tensor:
    """x (..., n) times the transposed weight, (..., m), by the kernel that `name` names."""
    choice = choice or default()
    # Kernels have no gradients and sum in float32; what they do not take the reference does.
    differentiable = x.requires_grad and torch.is_grad_enabled()
    if not x.is_cpu:
        _require_same_device(weight, x)
    if _on_gpu(x) and not differentiable and _gpu_kernel(weight, choice, x.dtype):
        return _gpu().matmul(weight, x)
    usable = x.is_cpu and x.dtype != torch.float64 and not differentiable
    if usable and _has_kernel(weight, choice):
        kernels = _compiled()
        assert kernels is not None
        kernels.set_threads(torch.get_num_threads())
        return kernels.matmul(weight, x, activations="int8" if choice == "int8" else "float")
    _require_same_device(weight, x)
    return weight.matmul(x)


def _require_same_device(weight: PackedWeight, x: Tensor) -> None:
    """BadInput for activations that are not where the weight is. A CPU kernel has looked already."""
    device = next(iter(weight.tensors().values())).device
    if x.device != device:
        raise BadInput(f"x: is on device {x.device}; accepted is {device}, where the packed weight is")


def name(weight: PackedWeight, choice: Choice | None = None) -> str:
    """What runs the weight on activations that are where it is, in words for tables and records.

    On a GPU those of half precision or bfloat16; the reference multiplies others.
    """
    choice = choice or default()
    if _on_gpu(next(iter(weight.tensors().values()))):
        return _gpu_kernel(weight, choice, torch.float16) or REFERENCE
    if not _has_kernel(weight, choice):
        return REFERENCE
    kernels = _compiled()
    assert kernels is not None
    return f"harness_kernels {kernels.isa()}, {'int8' if choice == 'int8' else 'float'} activations"


def native() -> Any:
    """The compiled part of `harness_kernels`; None where it is not installed."""
    kernels = _compiled()
    return None if kernels is None else kernels.native()


def isa() -> str | None:
    """The instruction set that the compiled kernels use; None where they are not installed."""
    kernels = _compiled()
    return None if kernels is None else kernels.isa()


@functools.cache
def build() -> str:
    """The beginning of the hash of the compiled kernels: times belong to one build of them. Empty without any."""
    kernels = _compiled()
    if kernels is None:
        return ""
    return hashlib.sha256(Path(kernels.native().__file__).read_bytes()).hexdigest()[:16]


def describe() -> str:
    """What this machine has, in one line."""
    kernels = _compiled()
    if kernels is None:
        return f"{REFERENCE} (harness_kernels is not installed: pip install ./kernels)"
    return f"harness_kernels {kernels.isa()}, {default()}"


def _has_kernel(weight: PackedWeight, choice: Choice) -> bool:
    kernels = _compiled()
    if choice == "reference" or kernels is None:
        return False
    return kernels.supports(weight, "int8" if choice == "int8" else "float")


@functools.cache
def _compiled() -> ModuleType | None:
    try:
        import harness_kernels
    except ImportError:
        return None
    return harness_kernels if harness_kernels.available() else None


def _on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda


def _gpu_kernel(weight: PackedWeight, choice: Choice, dtype: torch.dtype) -> str | None:
    """The GPU kernel in words; None where there is none for the weight and activations of that dtype."""
    return None if choice == "reference" or _gpu() is None else _gpu().name(weight, dtype)


@functools.cache
def _gpu() -> Any:
    try:
        from harness_kernels.gpu import weights
    except ImportError:
        return None
    return weights
