"""Kernels that run the stored formats of compressed weights, each beside its torch reference.

The stored bytes are read as they are: nothing is laid out anew, so a weight takes no memory beyond its file. The
instruction set is chosen on the machine that runs: on x86-64 AVX-512 with VBMI and VNNI ("avx512") or AVX2 ("avx2"), on
64-bit ARM NEON with dot products ("dotprod") or without ("neon"), elsewhere plain C++ ("portable"); the environment
variable HARNESS_KERNELS_ISA names another. One thread is used until `set_threads` says otherwise, and none is started
before the first product that needs it. Without the compiled part `available()` is false and the rest can be imported.

    y = harness_kernels.uniform(x, codes, scale, zero, bits=4, group_size=128)
    y = harness_kernels.matmul(packed_weight, x)      # any weight of harness.packed that has a kernel
"""

import os
import warnings

from harness_kernels.cpu import (
    MOST_ROWS,
    available,
    base3,
    bitmap,
    codebook,
    dense,
    dfloat11,
    group_multiple,
    lookup,
    native,
    sparse_rows,
    two_bit_ternary,
    two_of_four,
    uniform,
)
from harness_kernels.weights import matmul, supports


def isa() -> str:
    """The instruction set in use."""
    return native().isa()


def isas() -> list[str]:
    """Those of this machine, best first."""
    return native().isas()


def set_isa(name: str) -> None:
    """Use another one. Raises ValueError for one that this machine does not have."""
    native().set_isa(name)


def threads() -> int:
    """How many threads a product uses."""
    return native().threads()


def set_threads(count: int) -> None:
    """Use that many. Raises ValueError for fewer than one."""
    native().set_threads(count)


if available() and (_wanted := os.environ.get("HARNESS_KERNELS_ISA", isa())) not in isas():
    warnings.warn(
        f"HARNESS_KERNELS_ISA is {_wanted!r}; this machine has {', '.join(isas())}, of which {isa()} is used",
        RuntimeWarning,
        stacklevel=2,
    )

__all__ = [
    "MOST_ROWS",
    "available",
    "base3",
    "bitmap",
    "codebook",
    "dense",
    "dfloat11",
    "group_multiple",
    "isa",
    "isas",
    "lookup",
    "matmul",
    "native",
    "set_isa",
    "set_threads",
    "sparse_rows",
    "supports",
    "threads",
    "two_bit_ternary",
    "two_of_four",
    "uniform",
]
