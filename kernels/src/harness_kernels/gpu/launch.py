"""CUDA sources beside this file, compiled and launched on torch tensors.

Tensors on a GPU go to CuPy by DLPack, without a copy; a module is compiled once for each source and set of definitions
and kept. Within `emulation()` tensors on the CPU are accepted, too, and the same source runs as C++ (see `emulate`).
Importing this needs neither CuPy nor a driver.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness_kernels.gpu import emulate

HERE = Path(__file__).parent
ALIGNMENT = 16
"""Bytes: what the widest loads need; torch's allocations are multiples of 512."""
FLOATS = (torch.float16, torch.bfloat16)


def source(file: str) -> str:
    """The text of a .cu file with ours that it includes in their places, so that it compiles anywhere."""
    text = (HERE / file).read_text(encoding="utf-8")
    return re.sub(r'^#include "([\w.]+)"$', lambda found: source(found[1]), text, flags=re.MULTILINE)


def files() -> list[str]:
    """The CUDA sources of the package."""
    return sorted(path.name for path in HERE.glob("*.cu"))


def kernel_names(file: str) -> list[str]:
    """The kernels of a .cu file: KERNEL(name), and those that a macro of the file names in the same way."""
    text = re.sub(r"#define (?:.*\\\n)*.*", "", source(file))
    return re.findall(r"^[A-Z]+\((\w+)[,)]", text, flags=re.MULTILINE)


def key(text: str, definitions: Sequence[str]) -> str:
    """What a compiled module is known by."""
    return hashlib.sha256("\0".join([text, *definitions]).encode()).hexdigest()


def launch(
    file: str,
    kernel: str,
    grid: tuple[int, int],
    threads: int,
    arguments: Sequence[Tensor | int | float | None],
    *,
    shared: int = 0,
    bfloat: bool = False,
    definitions: Sequence[str] = (),
) -> None:
    """Run a kernel on the device of its tensors, in torch's current stream, with `shared` bytes of shared memory.

    Tensors become pointers and None a null one, int and float 32-bit numbers. Raises RuntimeError without a GPU or
    CuPy.
    """
    if not grid[0] * grid[1]:
        return
    device = next(a.device for a in arguments if isinstance(a, Tensor))
    definitions = (f"BFLOAT={int(bfloat)}", *definitions)
    if device.type == "cpu":
        library = emulate.library(source(file), tuple(kernel_names(file)), tuple(definitions))
        emulate.run(library, kernel, grid, threads, arguments, shared)
        return
    cupy = need_cupy()
    with cupy.cuda.Device(device.index or 0), cupy.cuda.ExternalStream(torch.cuda.current_stream(device).cuda_stream):
        function = _function(file, kernel, tuple(definitions), device.index or 0)
        if shared > 48 << 10 and function.max_dynamic_shared_size_bytes < shared:
            function.max_dynamic_shared_size_bytes = shared
        function((*grid, 1), (threads, 1, 1), tuple(_argument(cupy, a) for a in arguments), shared_mem=shared)


def check(device: torch.device | None = None, /, **tensors: tuple[Tensor, Any, tuple[int, ...] | None]) -> None:
    """Hold tensors to (tensor, dtype or dtypes, shape or None); all on one device, contiguous and aligned.

    Raises ValueError that names the argument, and RuntimeError where the device is a GPU that is not there.
    """
    for name, (tensor, dtypes, shape) in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name}: is a {type(tensor).__name__}; accepted is a tensor")
        device = device or _usable(name, tensor)
        accepted = dtypes if isinstance(dtypes, tuple) else (dtypes,)
        if tensor.device != device:
            raise ValueError(f"{name}: is on device {tensor.device}; accepted is {device}, where the others are")
        if tensor.dtype not in accepted:
            raise ValueError(f"{name}: has dtype {tensor.dtype}; accepted are {', '.join(map(str, accepted))}")
        if shape is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: has shape {tuple(tensor.shape)}; accepted is {shape}")
        if not tensor.is_contiguous():
            raise ValueError(f"{name}: has strides {tensor.stride()}; accepted is a contiguous tensor")
        if tensor.numel() and tensor.data_ptr() % ALIGNMENT:
            raise ValueError(f"{name}: begins at no multiple of {ALIGNMENT} bytes; accepted is an aligned tensor")


def check_rows(x: Tensor, most: int | None = None) -> None:
    """Hold activations to `check`, and to one row and `most` rows. Raises ValueError that names x."""
    check(x=(x, FLOATS, None))
    if x.ndim != 2 or (most and not 1 <= len(x) <= most):
        raise ValueError(f"x: has shape {tuple(x.shape)}; accepted are {f'1 to {most} ' if most else ''}rows")


def need_cupy() -> Any:
    """CuPy, on a machine with a GPU. Raises RuntimeError otherwise."""
    need_device()
    try:
        import cupy
    except ImportError:
        raise RuntimeError(
            "cupy is not installed, and the CUDA kernels need it: pip install 'nn-harness[gpu]'"
        ) from None
    return cupy


def need_triton(family: str) -> Any:
    """The Triton sources of a family. Raises RuntimeError where Triton is not installed."""
    try:
        return importlib.import_module(f"harness_kernels.gpu.triton_{family}")
    except ImportError as error:
        if (error.name or "").split(".")[0] != "triton":
            raise
        raise RuntimeError("triton is not installed, and this kernel needs it: pip install 'nn-harness[gpu]'") from None


def interpreted() -> bool:
    """Whether Triton kernels run on the CPU, in Triton's own interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def need_device() -> None:
    """Raises RuntimeError where torch sees no GPU."""
    if not torch.cuda.is_available():
        raise RuntimeError(f"no CUDA device; the GPU kernels need one that torch {torch.__version__} can use")


def _usable(name: str, tensor: Tensor) -> torch.device:
    if tensor.device.type != "cuda" and not (tensor.is_cpu and (emulate.active() or interpreted())):
        raise ValueError(f"{name}: is on device {tensor.device}; accepted is cuda")
    return tensor.device


@functools.cache
def _function(file: str, kernel: str, definitions: tuple[str, ...], device: int) -> Any:
    return _module(source(file), definitions, device).get_function(kernel)


def _module(text: str, definitions: tuple[str, ...], device: int) -> Any:
    found = (key(text, definitions), device)
    if found not in _modules:
        options = ("-std=c++17", *(f"-D{definition}" for definition in definitions))
        _modules[found] = need_cupy().RawModule(code=text, options=options)
    return _modules[found]


_modules: dict[tuple[str, int], Any] = {}


def _argument(cupy: Any, value: Tensor | int | float | None) -> Any:
    if value is None:
        return np.uintp(0)
    if isinstance(value, Tensor):
        # As bytes: CuPy has no bfloat16, and a kernel wants the address alone.
        return cupy.from_dlpack(value.detach().view(-1).view(torch.uint8)) if value.numel() else np.uintp(0)
    return np.int32(value) if isinstance(value, int) else np.float32(value)
