"""Triton source of `harness_kernels.gpu.gemm`. Importing it needs Triton, and no driver."""

import triton
import triton.language as tl


@triton.jit
def dot(left, right, sums, interpreted: tl.constexpr):
    """sums + left right. Triton's interpreter multiplies the bits of bfloat16; float32 holds the same numbers."""
    if interpreted:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, sums)


@triton.jit
def narrow(x, dtype: tl.constexpr, interpreted: tl.constexpr):
    """float32 to the nearest of dtype. Triton's interpreter cuts bfloat16 off: there it is rounded beforehand."""
    if interpreted and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        x = (bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000).to(tl.uint32).to(tl.float32, bitcast=True)
    return x.to(dtype)


@triton.jit
def codes_of_tile(row_pointers, first, columns, row_bytes, bits: tl.constexpr, width: tl.constexpr):
    """Integers (rows, width) of the columns from `first` on; what lies behind the end of a row is 0.

    `bits` 2, 3, 4 or 8; 0 stands for five ternary digits a byte.
    """
    k = first + tl.arange(0, width)
    inside = k[None, :] < columns
    if bits == 3:
        byte = k * 3 // 8
        low = tl.load(row_pointers[:, None] + byte[None, :], mask=inside, other=0).to(tl.int32)
        more = inside & (byte + 1 < row_bytes)[None, :]
        high = tl.load(row_pointers[:, None] + byte[None, :] + 1, mask=more, other=0).to(tl.int32)
        codes = (low | high << 8) >> (k * 3 % 8)[None, :] & 7
    elif bits == 0:
        # Multiplied by three the digits carry out one by one.
        digit = k % 5
        power = tl.where(digit == 0, 1, tl.where(digit == 1, 3, tl.where(digit == 2, 9, tl.where(digit == 3, 27, 81))))
        value = tl.load(row_pointers[:, None] + (k // 5)[None, :], mask=inside, other=0).to(tl.int32)
        codes = (value * power[None, :] & 255) * 3 >> 8
    else:
        at = first * bits // 8 + tl.arange(0, width * bits // 8)
        packed = tl.load(row_pointers[:, None] + at[None, :], mask=at[None, :] < row_bytes, other=0)
        if bits == 4:
            codes = tl.reshape(tl.join(packed & 15, packed >> 4), (row_pointers.shape[0], width)).to(tl.int32)
        elif bits == 2:
            even, odd = tl.join(packed & 3, packed >> 4 & 3), tl.join(packed >> 2 & 3, packed >> 6)
            codes = tl.reshape(tl.join(even, odd), (row_pointers.shape[0], width)).to(tl.int32)
        else:
            codes = packed.to(tl.int32)
    return codes


@triton.jit
def zero_of_group(zero, index, inside, zero_bits: tl.constexpr, constant: tl.constexpr):
    """Zero points: integers of `zero_bits` bits in one string, float16 numbers (-1), or a constant (0)."""
    if zero_bits == 0:
        zeros = tl.zeros(index.shape, tl.float32) + constant
    elif zero_bits == -1:
        zeros = tl.load(zero + index, mask=inside, other=0).to(tl.float32)
    else:
        bit = index * zero_bits
        low = tl.load(zero + bit // 8, mask=inside, other=0).to(tl.int32)
        crosses = inside & (bit % 8 + zero_bits > 8)
        high = tl.load(zero + bit // 8 + 1, mask=crosses, other=0).to(tl.int32)
        zeros = ((low | high << 8) >> (bit % 8).to(tl.int32) & ((1 << zero_bits) - 1)).to(tl.float32)
    return zeros


@triton.jit
def gemm(
    x, codes, scale, zero, factor, thin, y, rows, m, n, row_bytes, group_size, groups, rank,
    bits: tl.constexpr, zero_bits: tl.constexpr, constant: tl.constexpr, one_scale: tl.constexpr,
    low_rank: tl.constexpr, block_rows: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr,
    block_rank: tl.constexpr, interpreted: tl.constexpr,
):  # fmt: skip
    """y (rows, m) = x (rows, n) times the transposed weight, whose tiles (block_m, block_n) are decoded in registers,
    plus thin (rows, rank) times the transposed factor (m, rank)."""
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    output = tl.program_id(1) * block_m + tl.arange(0, block_m)
    row_inside, output_inside = row < rows, output < m
    code_rows = codes + output.to(tl.int64) * row_bytes
    # Rows behind the last one read the first; they are not stored.
    code_rows = tl.where(output_inside, code_rows, codes + tl.zeros_like(output).to(tl.int64))
    sums = tl.zeros((block_rows, block_m), tl.float32)
    for first in range(0, n, block_n):
        k = first + tl.arange(0, block_n)
        inside = row_inside[:, None] & (k < n)[None, :]
        activations = tl.load(x + row.to(tl.int64)[:, None] * n + k[None, :], mask=inside, other=0)
        group = output.to(tl.int64) * groups + first // group_size
        if one_scale:
            group = group * 0
        step = tl.load(scale + group, mask=output_inside, other=0).to(tl.float32)
        zeros = zero_of_group(zero, group, output_inside, zero_bits, constant)
        levels = codes_of_tile(code_rows, first, n, row_bytes, bits, block_n).to(tl.float32)
        weight = narrow((levels - zeros[:, None]) * step[:, None], activations.dtype, interpreted)
        sums = dot(activations, tl.trans(weight), sums, interpreted)
    if low_rank:
        for first in range(0, rank, block_rank):
            r = first + tl.arange(0, block_rank)
            of_rows = row_inside[:, None] & (r < rank)[None, :]
            of_outputs = output_inside[:, None] & (r < rank)[None, :]
            left = tl.load(thin + row.to(tl.int64)[:, None] * rank + r[None, :], mask=of_rows, other=0)
            right = tl.load(factor + output.to(tl.int64)[:, None] * rank + r[None, :], mask=of_outputs, other=0)
            sums = dot(left, tl.trans(narrow(right.to(tl.float32), left.dtype, interpreted)), sums, interpreted)
    at = y + row.to(tl.int64)[:, None] * m + output[None, :]
    tl.store(at, narrow(sums, y.dtype.element_ty, interpreted), mask=row_inside[:, None] & output_inside[None, :])
