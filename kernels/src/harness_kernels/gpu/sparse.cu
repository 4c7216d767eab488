// y = x W^T with two of every four columns kept (harness.packed.SemiStructured), as it is stored. BATCH rows of
// activations.
//
// A warp makes one output. A lane takes 16 columns at a time: eight values in one load of 16 bytes, their places in two
// bytes, and the 16 activations in two loads, out of which a byte permutation picks the right ones.
#include "device.cuh"

#ifndef BATCH
#define BATCH 1
#endif
constexpr int kValues = 8, kColumns = 16;

// `count` numbers of 16 bits, two in a word; those from `valid` on are 0.
template <int count>
__device__ void load(const u16* from, int valid, bool aligned, u32 words[count / 2]) {
    if (aligned && valid >= count) {
        for (int i = 0; i < count / 8; ++i) {
            const uint4 w = reinterpret_cast<const uint4*>(from)[i];
            words[4 * i] = w.x, words[4 * i + 1] = w.y, words[4 * i + 2] = w.z, words[4 * i + 3] = w.w;
        }
        return;
    }
    for (int i = 0; i < count / 2; ++i) {
        const u32 first = 2 * i < valid ? from[2 * i] : 0, second = 2 * i + 1 < valid ? from[2 * i + 1] : 0;
        words[i] = first | second << 16;
    }
}

// x (BATCH, n), values (m, kept) float16, index (m, index_bytes): two bits of place a value.
KERNEL(two_of_four)(const u16* x, const u16* values, const u8* index, u16* y, int m, int n, int kept, int index_bytes) {
    const int lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= m) return;
    const u16* of_row = values + 1LL * row * kept;
    const u8* places_of_row = index + 1LL * row * index_bytes;
    float sums[BATCH];
    for (int b = 0; b < BATCH; ++b) sums[b] = 0;
#pragma unroll 2
    for (int unit = lane; unit * kColumns < n; unit += 32) {
        u32 weights[kValues / 2];
        load<kValues>(of_row + unit * kValues, kept - unit * kValues, kept % 8 == 0, weights);
        u32 places = places_of_row[2 * unit];
        if (2 * unit + 1 < index_bytes) places |= static_cast<u32>(places_of_row[2 * unit + 1]) << 8;
        for (int b = 0; b < BATCH; ++b) {
            u32 activations[kColumns / 2];
            load<kColumns>(x + 1LL * b * n + unit * kColumns, n - unit * kColumns, n % 8 == 0, activations);
            for (int i = 0; i < kValues; ++i) {
                const u32 place = places >> 2 * i & 3, four = i / 2 * 2;
                const u32 picked = __byte_perm(activations[four], activations[four + 1], place * 0x22 + 0x10);
                const u16 weight = static_cast<u16>(weights[i / 2] >> i % 2 * 16);
                sums[b] += half_to_float(weight) * to_float(static_cast<u16>(picked));
            }
        }
    }
    for (int b = 0; b < BATCH; ++b) {
        const float sum = warp_sum(sums[b]);
        if (lane == 0) y[1LL * b * m + row] = from_float(sum);
    }
}
