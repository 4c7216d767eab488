"""DFloat11 as a method: nothing is lost, and what it stores is near the entropy. The format: test_packed_entropy.py."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.compress import LayerProblem
from harness.packed import Dense, DFloat11
from methods.coding.dfloat11 import dfloat11


def layer(weight: Tensor, dtype: torch.dtype = torch.bfloat16) -> LayerProblem:
    return LayerProblem("blocks.0.fc", weight, generator=torch.Generator(), dtype=dtype)


def test_a_bfloat16_weight_comes_back_bit_for_bit() -> None:
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight[0, :4] = torch.tensor([0.0, -0.0, 1e-40, 3e38])
    packed = dfloat11(layer(weight.float()))
    assert isinstance(packed, DFloat11)
    assert torch.equal(packed.decode().view(torch.int16), weight.view(torch.int16))


def test_gaussian_weights_take_eleven_bits() -> None:
    """Exponents of 2.55 bits, and 8 of sign and mantissa; the code is at most one bit above its entropy."""
    weight = torch.randn(512, 4096, generator=torch.Generator().manual_seed(0))
    bits = dfloat11(layer(weight)).bits_per_weight
    exponents = weight.bfloat16().view(torch.int16).int() >> 7 & 0xFF
    share = torch.bincount(exponents.flatten()) / weight.numel()
    entropy = float(-(share[share > 0] * share[share > 0].log2()).sum())
    assert abs(entropy - 2.55) < 0.02
    assert 8 + entropy < bits < 8 + (entropy + 0.2) * (1 + 5 / 64)
    assert 0.64 < bits / 16 < 0.72


def test_what_is_not_bfloat16_is_kept_as_it_is() -> None:
    packed = dfloat11(layer(torch.randn(8, 16), torch.float16))
    assert isinstance(packed, Dense)
    assert packed.bits_per_weight == 16
