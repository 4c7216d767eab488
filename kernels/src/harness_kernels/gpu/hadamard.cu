// Walsh-Hadamard transform of rows of 2^LOG numbers, times a factor: y = factor x H, H of 1 and -1 in natural order.
//
// A block takes one row, a thread 16 numbers: four of the LOG stages are additions inside a thread, between two fours the
// numbers change places in shared memory, in float32. One word is left out after each 16, so that the threads of a warp
// meet different banks.
#include "device.cuh"

#ifndef LOG
#define LOG 12
#endif
constexpr int kMine = 16, kSize = 1 << LOG;

__device__ inline int padded(int i) { return i + (i >> 4); }

// Stages `from` to 3 of the 16 numbers, whose distances are powers of two.
__device__ inline void butterflies(float v[kMine], int from) {
#pragma unroll
    for (int stage = 0; stage < 4; ++stage) {
        if (stage < from) continue;
#pragma unroll
        for (int k = 0; k < kMine; ++k)
            if (!(k >> stage & 1)) {
                const float a = v[k], b = v[k | 1 << stage];
                v[k] = a + b;
                v[k | 1 << stage] = a - b;
            }
    }
}

KERNEL(hadamard)(const u16* x, u16* y, float factor) {
    DYNAMIC_SHARED(raw);
    float* shared = reinterpret_cast<float*>(raw);
    const int t = threadIdx.x;
    const uint4* from = reinterpret_cast<const uint4*>(x + 1LL * blockIdx.x * kSize + t * kMine);
    uint4* to = reinterpret_cast<uint4*>(y + 1LL * blockIdx.x * kSize + t * kMine);
    float v[kMine];
    for (int i = 0; i < 2; ++i) {
        const uint4 w = from[i];
        const u32 words[4] = {w.x, w.y, w.z, w.w};
        for (int k = 0; k < 4; ++k) {
            v[8 * i + 2 * k] = to_float(static_cast<u16>(words[k]));
            v[8 * i + 2 * k + 1] = to_float(static_cast<u16>(words[k] >> 16));
        }
    }
    butterflies(v, 0);
    if (LOG > 4) {
        for (int k = 0; k < kMine; ++k) shared[padded(t * kMine + k)] = v[k];
#pragma unroll
        for (int done = 4; done < LOG; done += 4) {
            // The last turn takes the four highest bits, of which some may be done already.
            const int bit = done + 4 <= LOG ? done : LOG - 4, low = t & ((1 << bit) - 1), high = t >> bit << (bit + 4);
            __syncthreads();
            for (int k = 0; k < kMine; ++k) v[k] = shared[padded(high | k << bit | low)];
            butterflies(v, done - bit);
            for (int k = 0; k < kMine; ++k) shared[padded(high | k << bit | low)] = v[k];
        }
        __syncthreads();
        for (int k = 0; k < kMine; ++k) v[k] = shared[padded(t * kMine + k)];
    }
    for (int i = 0; i < 2; ++i) {
        u32 words[4];
        for (int k = 0; k < 4; ++k)
            words[k] = from_float(factor * v[8 * i + 2 * k]) | static_cast<u32>(from_float(factor * v[8 * i + 2 * k + 1])) << 16;
        to[i] = {words[0], words[1], words[2], words[3]};
    }
}
