"""The kernels, one product each: a row of activations times a 1024 x 1024 weight, which stays in the cache, so that
what changes is the kernel and not the memory."""

from __future__ import annotations

from functools import partial

import torch

from harness.latency import weights
from harness.packed import CompressedLinear

SIDE = 1024
FORMATS = {
    **{f"{bits}-bit": partial(weights.uniform, bits=bits) for bits in (2, 3, 4, 8)},
    "ternary, 2 bits": partial(weights.ternary, layout="two_bits"),
    "ternary, base 3": partial(weights.ternary, layout="base3"),
    "3:4 ternary": weights.sparse_ternary,
    "2 bit planes": partial(weights.bit_planes, planes=2),
    "codebook of 2**12": partial(weights.codebook, bits=12),
    "2:4 sparse": weights.two_of_four,
    "half by mask": weights.bitmap,
    "a tenth by rows": partial(weights.sparse_rows, density=0.1),
    "bfloat16": partial(weights.dense, dtype=torch.bfloat16),
    "rank 128": partial(weights.low_rank, rank=128),
    "DFloat11": weights.dfloat11,
}


class Product:
    """Seconds of a product, with floating activations and with activations rounded to 8 bits. Formats and kinds of
    activations that have no compiled kernel run on the torch reference, and are left out."""

    params = (tuple(FORMATS), ("fastest", "int8"))
    param_names = ("format", "kernel")

    def setup(self, name: str, kernel: str) -> None:
        self.layer = CompressedLinear(FORMATS[name](SIDE, SIDE, torch.Generator().manual_seed(0)), kernel=kernel)
        if self.layer.runs_on.startswith("torch"):
            raise NotImplementedError  # asv's word for "not applicable"
        self.x = torch.randn(1, SIDE, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def time_product(self, name: str, kernel: str) -> None:
        self.layer(self.x)
