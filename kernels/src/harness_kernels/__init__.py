"""Kernels that run the stored formats of compressed weights on the CPU, each beside its torch reference.

The stored bytes are read as they are: nothing is laid out anew, so a weight takes no memory beyond its file. The
instruction set is chosen on the machine that runs (AVX-512 with VBMI and VNNI, AVX2, or plain C++). One thread is used
until `set_threads` says otherwise, and none is started before the first product that needs it.

    y = harness_kernels.uniform(x, codes, scale, zero, bits=4, group_size=128)
    y = harness_kernels.matmul(packed_weight, x)      # any weight of harness.packed that has a kernel
"""

from harness_kernels._native import isa, isas, set_isa, set_threads, threads
from harness_kernels.products import MOST_ROWS, base3, group_multiple, matmul, pack_base3, supports, uniform

__all__ = [
    "MOST_ROWS",
    "base3",
    "group_multiple",
    "isa",
    "isas",
    "matmul",
    "pack_base3",
    "set_isa",
    "set_threads",
    "supports",
    "threads",
    "uniform",
]
