"""CUDA sources as C++ on the CPU, for tests: emulate.h stands for the device, g++ compiles.

Slow (a block's threads are fibers), but the same source: its indices, barriers and copies are those of the GPU.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

HEADER = Path(__file__).parent / "emulate.h"
_active = False


@contextlib.contextmanager
def emulation() -> Iterator[None]:
    """Within it kernels take tensors on the CPU. Raises RuntimeError without a C++ compiler."""
    global _active
    need_compiler()
    before, _active = _active, True
    try:
        yield
    finally:
        _active = before


def active() -> bool:
    return _active


def need_compiler() -> str:
    """The path of a C++ compiler. Raises RuntimeError where there is none."""
    found = shutil.which(os.environ.get("CXX") or "g++")
    if not found:
        raise RuntimeError("no C++ compiler was found (CXX=... names one); emulation compiles the CUDA sources with it")
    return found


@functools.cache
def library(text: str, kernels: tuple[str, ...], definitions: tuple[str, ...]) -> ctypes.CDLL:
    """A kernel source with a launcher for each of its kernels, compiled and loaded."""
    folder = Path(_folder(), str(len(list(Path(_folder()).iterdir()))))
    folder.mkdir()
    launchers = "\n".join(f"EMULATED_LAUNCHER({name})" for name in kernels)
    (folder / "kernel.cpp").write_text(f"{text}\n{launchers}\n", encoding="utf-8")
    options = ["-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-include", str(HEADER)]
    command = [need_compiler(), *options, *(f"-D{d}" for d in definitions), "-o", "kernel.so", "kernel.cpp"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the kernel does not compile as C++:\n{done.stderr}")
    return ctypes.CDLL(str(folder / "kernel.so"))


def run(
    compiled: ctypes.CDLL,
    kernel: str,
    grid: tuple[int, int],
    threads: int,
    arguments: Sequence[Tensor | int | float | None],
    shared: int,
) -> None:
    """Launch a kernel of `library`: block after block, in this thread."""
    values = [_value(argument) for argument in arguments]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
    blocks = (ctypes.c_int * 3)(*grid, 1)
    getattr(compiled, f"launch_{kernel}")(blocks, ctypes.c_int(threads), ctypes.c_size_t(shared), pointers)


def _value(argument: Tensor | int | float | None) -> Any:
    if argument is None or isinstance(argument, Tensor):
        return ctypes.c_void_p(None if argument is None else argument.data_ptr())
    return ctypes.c_int(argument) if isinstance(argument, int) else ctypes.c_float(argument)


@functools.cache
def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="harness-emulation-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
