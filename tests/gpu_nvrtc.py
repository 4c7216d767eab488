"""CUDA sources compiled for a GPU that is not there: NVRTC through its C interface, from the package of NVIDIA's."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path


@functools.cache
def library() -> ctypes.CDLL | None:
    """NVRTC as nvidia-cuda-nvrtc-cu12 or -cu13 installs it, or as the system has it; None where it is not."""
    places: list[str] = []
    for package in ("nvidia.cuda_nvrtc", "nvidia.cu13"):
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in (found and found.submodule_search_locations) or ():
            places += sorted(str(path) for path in Path(folder, "lib").glob("libnvrtc.so.1?"))
    for place in [*places, "libnvrtc.so"]:
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    return None


def compile_ptx(text: str, architecture: str, definitions: Sequence[str] = ()) -> str:
    """PTX of a source for "sm_80" and the like, after the assembler has accepted it. Raises AssertionError with the
    compiler's words."""
    nvrtc = library()
    assert nvrtc is not None
    program = ctypes.c_void_p()
    _ok(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None))
    options = ["-std=c++17", f"-arch={architecture}", *(f"-D{definition}" for definition in definitions)]
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), given)
    assert not failed, _text(nvrtc, program, "ProgramLog")
    size = ctypes.c_size_t()
    _ok(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)))
    assert size.value > 1, "no machine code"
    ptx = _text(nvrtc, program, "PTX")
    _ok(nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))
    return ptx


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    _ok(getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _ok(getattr(nvrtc, f"nvrtcGet{what}")(program, text))
    return text.value.decode()


def _ok(status: int) -> None:
    assert status == 0, f"NVRTC answers {status}"
