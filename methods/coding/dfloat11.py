"""DFloat11: Zhang et al., "70% Size, 100% Accuracy: Lossless LLM Compression for Efficient GPU Inference via
Dynamic-Length Float" (2025)."""

from __future__ import annotations

import torch

from harness import DFloat11, LayerProblem, PackedWeight, method


@method(track="compress", paper="zhang2025dfloat11")
def dfloat11(layer: LayerProblem) -> PackedWeight:
    """The exponents of a bfloat16 weight in a Huffman code, sign and mantissa as they are: bit for bit the same weight.

    Canonical codes of at most 32 bits from the counts of this layer's exponents (section 2.2; while one is too long,
    the counts of the rarest become 1), in one stream with five bits for each eight bytes of it that say where the first
    code starts, and the number that each 512 of these start with, so that all of it can be decoded at once (section
    2.3). Reads no data. A weight that the checkpoint does not store as bfloat16 is kept as it is, at its full size.

    Deviations: the paper's code counts exponents over all matrices of a transformer block, here each has a code of its
    own (256 bytes of code lengths a matrix); its tables of 256 entries are made from the lengths and not stored.
    """
    if layer.dtype is not torch.bfloat16:
        return layer.dense()
    return DFloat11.pack(layer.weight.to(torch.bfloat16))
