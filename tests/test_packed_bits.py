"""Bit packing: an exact inverse, the documented layout, no bit more than needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.packed.bits import pack_bits, packed_bytes, unpack_bits


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 35), st.integers(0, 2**31))
def test_unpacking_gives_back_every_code(bits, rows, count, seed):
    codes = torch.randint(0, 2**bits, (rows, count), generator=torch.Generator().manual_seed(seed))
    packed = pack_bits(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (rows, -(-count * bits // 8))
    assert torch.equal(unpack_bits(packed, bits, count).long(), codes)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [1, 7, 8, 13])
def test_layout_is_a_little_endian_bit_string(bits, count):
    codes = np.random.default_rng(bits).integers(0, 2**bits, count)
    string = "".join(format(code, f"0{bits}b")[::-1] for code in codes).ljust(8 * packed_bytes(count, bits), "0")
    expected = np.packbits([int(bit) for bit in string], bitorder="little")
    assert pack_bits(torch.from_numpy(codes), bits).numpy().tolist() == expected.tolist()


def test_eight_codes_of_three_bits_take_three_bytes():
    assert pack_bits(torch.tensor([7, 0, 7, 0, 7, 0, 7, 0]), 3).tolist() == [0b11000111, 0b01110001, 0b00011100]


@pytest.mark.parametrize("codes", [torch.tensor([8]), torch.tensor([-1]), torch.tensor([1.0])])
def test_what_does_not_fit_is_refused(codes):
    with pytest.raises(ValueError, match="integers from 0 to 7"):
        pack_bits(codes, 3)


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match=f"bits is {bits}"):
        pack_bits(torch.tensor([0]), bits)


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="9 codes of 3 bits take 4 bytes"):
        unpack_bits(torch.zeros(2, 3, dtype=torch.uint8), 3, 9)
