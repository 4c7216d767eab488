// y = x W^T for vectors of outputs that are entries of a codebook (harness.packed.Codebook: VPTQ), as it is stored.
// VECTOR outputs an entry, BATCH rows of activations. Loops over them are unrolled by order: 64 sums are too many for the
// compiler to do so by itself, and sums that are not in registers are in memory.
//
// A block first brings the codebook into shared memory, where it fits. A warp makes the outputs of one row of indices:
// a lane takes eight columns at a time, and the lanes' sums are added up in the end.
#include "device.cuh"

#ifndef VECTOR
#define VECTOR 8
#endif
#ifndef BATCH
#define BATCH 1
#endif

// Eight codes of `bits` bits in the `bits` bytes that they take; those behind the end of the row are 0.
__device__ inline u64 eight_codes(const u8* row, int unit, int bits, int row_bytes) {
    const int first = unit * bits, valid = row_bytes - first;
    if (bits == 8 && valid >= 8 && reinterpret_cast<u64>(row) % 8 == 0) {
        const uint2 w = *reinterpret_cast<const uint2*>(row + first);
        return static_cast<u64>(w.y) << 32 | w.x;
    }
    u64 word = 0;
    for (int i = 0; i < bits && i < valid; ++i) word |= static_cast<u64>(row[first + i]) << 8 * i;
    return word;
}

__device__ inline void add_vector(const u16* entry, const float* x, int n, float sums[BATCH][VECTOR]) {
    float values[VECTOR];
    for (int t = 0; t < VECTOR; ++t) values[t] = half_to_float(entry[t]);
#pragma unroll
    for (int b = 0; b < BATCH; ++b) {
        const float activation = x[1LL * b * n];
#pragma unroll
        for (int t = 0; t < VECTOR; ++t) sums[b][t] += activation * values[t];
    }
}

// x (BATCH, n) float32, codes (vectors, low_bytes), high (vectors, high_bytes) or null, book (2^bits, VECTOR),
// shift (BATCH) or null: what every output of a row is increased by.
KERNEL(codebook)(const float* x, const u8* codes, const u8* high, const u16* book, const float* shift, u16* y, int m,
                 int n, int bits, int low_bytes, int high_bytes, int in_shared) {
    DYNAMIC_SHARED(shared);
    u16* copy = reinterpret_cast<u16*>(shared);
    if (in_shared) {
        const int bytes = (2 * VECTOR) << bits;
        for (int i = 16 * threadIdx.x; i < bytes; i += 16 * blockDim.x)
            copy_row(shared + i, reinterpret_cast<const u8*>(book) + i, bytes - i, true);
        commit_copies();
        wait_copies<0>();
        __syncthreads();
    }
    const u16* entries = in_shared ? copy : book;
    const int lane = threadIdx.x % 32, vector = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (1LL * vector * VECTOR >= m) return;
    const int low = bits < 8 ? bits : 8;
    const u8* low_row = codes + 1LL * vector * low_bytes;
    const u8* high_row = high ? high + 1LL * vector * high_bytes : nullptr;
    float sums[BATCH][VECTOR];
#pragma unroll
    for (int b = 0; b < BATCH; ++b)
#pragma unroll
        for (int t = 0; t < VECTOR; ++t) sums[b][t] = 0;
    for (int unit = lane; 8 * unit < n; unit += 32) {
        const u64 lows = eight_codes(low_row, unit, low, low_bytes);
        const u64 highs = high ? eight_codes(high_row, unit, bits - 8, high_bytes) : 0;
        for (int i = 0; i < 8 && 8 * unit + i < n; ++i) {
            u32 index = static_cast<u32>(lows >> i * low) & ((1u << low) - 1);
            if (high) index |= (static_cast<u32>(highs >> i * (bits - 8)) & ((1u << (bits - 8)) - 1)) << 8;
            add_vector(entries + index * VECTOR, x + 8 * unit + i, n, sums);
        }
    }
#pragma unroll
    for (int b = 0; b < BATCH; ++b)
#pragma unroll
        for (int t = 0; t < VECTOR; ++t) {
            const float sum = warp_sum(sums[b][t]);
            const long long row = 1LL * vector * VECTOR + t;
            if (lane == 0 && row < m) y[1LL * b * m + row] = from_float(sum + (shift ? shift[b] : 0));
        }
}
