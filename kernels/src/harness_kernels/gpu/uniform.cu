// y = x W^T for codes of 2, 3, 4 and 8 bits and for ternary digits, five in a byte, with a scale and a zero point for
// each group of columns (harness.packed.Uniform and Ternary, as they are stored), and 1 to 8 rows of activations.
//
// A block makes 16 outputs. Its warps share out the columns in tiles of 48 or 64 bytes a row, which copies of 16 bytes
// bring into shared memory three tiles deep; tensor cores multiply the codes, exact in half precision and bfloat16
// alike, by the activations, with float32 sums. The order of columns inside a product is free, so that two codes which
// one mask takes out of a word make a pair. A second product, of ones, sums the activations up, so that scale and zero
// point are applied once a group: sum of scale (code - zero) x = scale (sum of code x - zero sum of x).
#include "device.cuh"

constexpr int kRows = 16, kStages = 3, kWarp = 32;
constexpr u32 kMagic = BFLOAT ? 0x43004300 : 0x64006400;       // 128 and 1024: the next codes stand in the last bits
constexpr u32 kMinusMagic = BFLOAT ? 0xC300C300 : 0xE400E400;
constexpr u32 kOne = BFLOAT ? 0x3F803F80 : 0x3C003C00;

// Two integers below 128 (1024 in half precision), one in each half of the word, as activations.
__device__ inline u32 numbers(u32 halves) { return fma_pair(halves | kMagic, kOne, kMinusMagic); }

// Codes of 2, 3, 4 or 8 bits. A lane takes eight columns a step: pairs of columns i and i + 4.
template <int bits>
struct Codes {
    static constexpr int tile_bytes = bits == 3 ? 48 : 64, tile_columns = 8 * tile_bytes / bits;
    static constexpr int pitch = bits == 3 ? 48 : 80;  // rows of a tile begin in different banks
    static constexpr int columns = 8, pairs = 4;

    static __device__ void weights(const u8* row, int unit, u32 out[pairs]) {
        const u8* at = row + unit * bits;
        if (bits == 8) {
            const uint2 w = *reinterpret_cast<const uint2*>(at);
            for (int i = 0; i < 4; ++i) out[i] = byte_numbers(__byte_perm(w.x, w.y, i | (4 + i) << 8) & 0x00FF00FF);
            return;
        }
        u32 halves;
        if (bits == 4) halves = *reinterpret_cast<const u32*>(at);
        if (bits == 2) halves = __byte_perm(*reinterpret_cast<const u16*>(at), 0, 0x4140);
        if (bits == 3) {
            const u32 w = at[0] | at[1] << 8 | at[2] << 16;
            halves = (w & 0xFFF) | (w & 0xFFF000) << 4;
        }
        constexpr u32 mask = ((1u << bits) - 1) * 0x00010001;
        for (int i = 0; i < 4; ++i) out[i] = numbers(halves >> i * bits & mask);
    }

    // Eight bits are more than bfloat16's fraction holds beside a leading 128: they are put together from four and four.
    static __device__ u32 byte_numbers(u32 halves) {
        if (!BFLOAT) return numbers(halves);
        const u32 high = fma_pair((halves >> 4 & 0x000F000F) | kMagic, 0x41804180, 0xC500C500);  // 16 h - 2048
        return fma_pair(high, kOne, numbers(halves & 0x000F000F));
    }

    static __device__ void activations(const u16* x, int unit, u32 out[pairs]) {
        const uint4 w = *reinterpret_cast<const uint4*>(x + unit * columns);
        out[0] = __byte_perm(w.x, w.z, 0x5410);
        out[1] = __byte_perm(w.x, w.z, 0x7632);
        out[2] = __byte_perm(w.y, w.w, 0x5410);
        out[3] = __byte_perm(w.y, w.w, 0x7632);
    }
};

// Ternary digits, five in a byte, which carry out one by one when it is multiplied by three. A lane takes four bytes a
// step: pairs of columns d and d + 5.
struct Base3 {
    static constexpr int tile_bytes = 64, tile_columns = 320, pitch = 80, columns = 20, pairs = 10;

    static __device__ void weights(const u8* row, int unit, u32 out[pairs]) {
        const u32 w = *reinterpret_cast<const u32*>(row + unit * 4);
        for (int half = 0; half < 2; ++half) {
            u32 rest = __byte_perm(w, 0, half ? 0x4342 : 0x4140);
            for (int d = 0; d < 5; ++d) {
                rest *= 3;
                out[5 * half + d] = numbers(rest >> 8 & 0x00030003);
                rest &= 0x00FF00FF;
            }
        }
    }

    static __device__ void activations(const u16* x, int unit, u32 out[pairs]) {
        for (int i = 0; i < pairs; ++i) {
            const u16* at = x + unit * columns + i / 5 * 10 + i % 5;
            out[i] = at[0] | static_cast<u32>(at[5]) << 16;
        }
    }
};

struct Problem {
    const u16* x;          // (batch, n)
    const u8* codes;       // (m, row_bytes)
    const u16* scale;      // (m, groups) or one
    const void* zero;      // by zero_kind: 0 a constant, 1 integers of zero_bits bits, 2 half precision like scale
    const void* factor;    // (m, rank) of factor_kind: 0 half precision, 1 bfloat16, 2 float32; or null
    const float* thin;     // (batch, rank): the activations times the other factor
    u16* y;                // (batch, m)
    // group_steps: steps of four lanes' columns in a group.
    int batch, m, n, row_bytes, group_steps, groups, one_scale, zero_kind, zero_bits, zero_constant, rank, factor_kind;
};

template <class Format>
struct Tile {
    static constexpr int x_pitch = 2 * Format::tile_columns + 64;
    static __device__ int bytes(int batch) { return kRows * Format::pitch + batch * x_pitch; }
};

// Start to bring tile number `tile` of the rows' codes and of the activations into shared memory.
template <class Format>
__device__ void fetch(const Problem& p, u8* to, int first_row, int tile, int lane) {
    constexpr int chunks = Format::tile_bytes / 16, x_chunks = Format::tile_columns / 8;
    const long long at = static_cast<long long>(tile) * Format::tile_bytes, column = 1LL * tile * Format::tile_columns;
    if (column < p.n) {
        for (int i = lane; i < kRows * chunks; i += kWarp) {
            const int row = i / chunks, byte = i % chunks * 16;
            const int valid = first_row + row < p.m ? static_cast<int>(p.row_bytes - at) - byte : 0;
            copy_row(to + row * Format::pitch + byte, p.codes + 1LL * (first_row + row) * p.row_bytes + at + byte, valid,
                     p.row_bytes % 16 == 0);
        }
        for (int i = lane; i < p.batch * x_chunks; i += kWarp) {
            const int row = i / x_chunks, first = i % x_chunks * 8;
            copy_row(to + kRows * Format::pitch + row * Tile<Format>::x_pitch + 2 * first,
                     reinterpret_cast<const u8*>(p.x + 1LL * row * p.n + column + first),
                     2 * (static_cast<int>(p.n - column) - first), p.n % 8 == 0);
        }
    }
    commit_copies();
}

// Scales and zero points of the block's rows, (groups, 16) each, in half precision.
__device__ inline void fetch_groups(const Problem& p, u16* scales, u16* zeros, int first_row) {
    for (int i = threadIdx.x; i < kRows * p.groups; i += blockDim.x) {
        const int row = i / p.groups, group = i % p.groups, at = group * kRows + row;
        const bool inside = first_row + row < p.m;
        const long long from = p.one_scale ? 0 : 1LL * (first_row + row) * p.groups + group;
        u16 zero = float_to_half(static_cast<float>(p.zero_constant));
        if (inside && p.zero_kind == 1)
            zero = float_to_half(static_cast<float>(code_at(static_cast<const u8*>(p.zero), from, p.zero_bits)));
        if (inside && p.zero_kind == 2) zero = static_cast<const u16*>(p.zero)[from];
        scales[at] = inside ? p.scale[from] : 0;
        zeros[at] = zero;
    }
}

__device__ inline float factor_at(const Problem& p, long long at) {
    if (p.factor_kind == 2) return static_cast<const float*>(p.factor)[at];
    const u16 x = static_cast<const u16*>(p.factor)[at];
    return p.factor_kind == 1 ? bfloat_to_float(x) : half_to_float(x);
}

// The low-rank term of the block's outputs, added to what its first warp found.
__device__ inline void add_low_rank(const Problem& p, float* outputs, int first_row) {
    const int lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
    for (int i = threadIdx.x / kWarp; i < kRows * p.batch; i += warps) {
        const int row = i % kRows, b = i / kRows;
        if (first_row + row >= p.m) continue;
        float sum = 0;
        for (int k = lane; k < p.rank; k += kWarp)
            sum += factor_at(p, 1LL * (first_row + row) * p.rank + k) * p.thin[b * p.rank + k];
        sum = warp_sum(sum);
        if (lane == 0) outputs[row * 8 + b] += sum;
    }
}

// What a warp has summed up for the two rows and two activations of a lane.
struct Sums {
    float total[4] = {0, 0, 0, 0}, codes[4] = {0, 0, 0, 0}, ones[4] = {0, 0, 0, 0};

    __device__ void end_group(const u16* scales, const u16* zeros, int row) {
        for (int i = 0; i < 4; ++i) {
            const int r = row + i / 2 * 8;
            total[i] += half_to_float(scales[r]) * (codes[i] - half_to_float(zeros[r]) * ones[i]);
        }
        for (int i = 0; i < 4; ++i) codes[i] = ones[i] = 0;
    }
};

template <class Format>
__device__ void multiply(const Problem& p, const u8* stage, int tile, const u16* scales, const u16* zeros, Sums& sums) {
    constexpr int step_columns = 4 * Format::columns, tile_steps = Format::tile_columns / step_columns;
    const int lane = threadIdx.x % kWarp, row = lane / 4;
    const u8* rows = stage + row * Format::pitch;
    const u16* x = reinterpret_cast<const u16*>(stage + kRows * Format::pitch + row * Tile<Format>::x_pitch);
    // Groups are whole steps; they are counted, not divided out, but for once a tile.
    const int first = tile * tile_steps, all = (p.n + step_columns - 1) / step_columns;
    const int steps = all - first < tile_steps ? all - first : tile_steps;
    int at = first / p.group_steps * kRows, left = p.group_steps - first % p.group_steps;
#pragma unroll 4
    for (int step = 0; step < steps; ++step, --left) {
        if (left == 0) {
            sums.end_group(scales + at, zeros + at, row);
            at += kRows;
            left = p.group_steps;
        }
        const int unit = step * 4 + lane % 4;
        u32 upper[Format::pairs], lower[Format::pairs], right[Format::pairs];
        Format::weights(rows, unit, upper);
        Format::weights(rows + 8 * Format::pitch, unit, lower);
        if (row < p.batch) {
            Format::activations(x, unit, right);
        } else {
            for (int i = 0; i < Format::pairs; ++i) right[i] = 0;
        }
        for (int i = 0; i < Format::pairs; i += 2) {
            multiply_tile(sums.codes, upper[i], lower[i], upper[i + 1], lower[i + 1], right[i], right[i + 1]);
            multiply_tile(sums.ones, kOne, kOne, kOne, kOne, right[i], right[i + 1]);
        }
    }
    sums.end_group(scales + at, zeros + at, row);
}

template <class Format>
__device__ void gemv(const Problem& p) {
    DYNAMIC_SHARED(shared);
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    const int first_row = blockIdx.x * kRows, tiles = (p.n + Format::tile_columns - 1) / Format::tile_columns;
    const int tile_bytes = Tile<Format>::bytes(p.batch);
    u8* stages = shared + warp * kStages * tile_bytes;
    u16* scales = reinterpret_cast<u16*>(shared + warps * kStages * tile_bytes);
    u16* zeros = scales + p.groups * kRows;

    for (int s = 0; s < kStages - 1; ++s) fetch<Format>(p, stages + s * tile_bytes, first_row, warp + s * warps, lane);
    fetch_groups(p, scales, zeros, first_row);
    __syncthreads();

    Sums sums;
    for (int tile = warp, turn = 0; tile < tiles; tile += warps, ++turn) {
        const int ahead = kStages - 1;
        fetch<Format>(p, stages + (turn + ahead) % kStages * tile_bytes, first_row, tile + ahead * warps, lane);
        wait_copies<kStages - 1>();
        __syncwarp();
        multiply<Format>(p, stages + turn % kStages * tile_bytes, tile, scales, zeros, sums);
        __syncwarp();
    }
    wait_copies<0>();
    __syncthreads();

    // The warps' sums, (warps, 16, 8), where the tiles were; they are added up in one order, whatever runs first.
    float* parts = reinterpret_cast<float*>(shared);
    for (int i = 0; i < 4; ++i)
        parts[warp * kRows * 8 + (lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums.total[i];
    __syncthreads();
    if (p.factor) {
        add_low_rank(p, parts, first_row);
        __syncthreads();
    }
    for (int i = threadIdx.x; i < kRows * p.batch; i += blockDim.x) {
        const int row = i % kRows, b = i / kRows;
        float sum = 0;
        for (int w = 0; w < warps; ++w) sum += parts[w * kRows * 8 + row * 8 + b];
        if (first_row + row < p.m) p.y[1LL * b * p.m + first_row + row] = from_float(sum);
    }
}

#define GEMV(name, ...)                                                                                              \
    KERNEL(name)(const u16* x, const u8* codes, const u16* scale, const void* zero, const void* factor,              \
                 const float* thin, u16* y, int batch, int m, int n, int row_bytes, int group_steps, int groups,     \
                 int one_scale, int zero_kind, int zero_bits, int zero_constant, int rank, int factor_kind) {        \
        gemv<__VA_ARGS__>({x, codes, scale, zero, factor, thin, y, batch, m, n, row_bytes, group_steps, groups,      \
                           one_scale, zero_kind, zero_bits, zero_constant, rank, factor_kind});                      \
    }

GEMV(codes_of_2, Codes<2>)
GEMV(codes_of_3, Codes<3>)
GEMV(codes_of_4, Codes<4>)
GEMV(codes_of_8, Codes<8>)
GEMV(base3, Base3)
