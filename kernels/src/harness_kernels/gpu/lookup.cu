// y = x W^T by table lookup: bit planes (harness.packed.BitPlanes: T-MAC, ELUTQ) and ternary weights with one zero in
// four (SparseTernary: Sherry), as they are stored, in tiles of 32 rows.
//
// A block makes the 32 outputs of a tile, a lane one of them; its warps share out the columns, 64 at a time. For each
// four activations a warp writes the sums of all 16 patterns into shared memory, in float32, so that nothing is
// rounded; a nibble of the codes then picks one, from 16 different banks. Codes, signs and scales come by copies of 16
// bytes, four chunks deep.
#include "device.cuh"

constexpr int kTile = 32, kChunk = 64, kBytes = kChunk / 8, kTables = kChunk / 4, kStages = 4;

struct Problem {
    const u16* x;       // (batch, n)
    const u8* codes;    // (tiles, ceil(n / 8), planes, 32)
    const u8* signs;    // (tiles, ceil(n / 32), 32), or null for bit planes
    const u16* scale;   // (tiles, groups, scale_planes, 32)
    const u16* offset;  // (tiles, groups, 32), or null
    u16* y;             // (batch, m)
    int m, n, planes, scale_planes, group_bytes, groups, span;
};

// Where the parts of a chunk are in its stage: `span` groups at most meet in a chunk.
struct Layout {
    int codes, signs, scale, offset, bytes;
    __device__ explicit Layout(const Problem& p) {
        codes = 0;
        signs = kBytes * p.planes * kTile;
        scale = signs + (p.signs ? kChunk / 32 * kTile : 0);
        offset = scale + p.span * p.scale_planes * kTile * 2;
        bytes = offset + (p.offset ? p.span * kTile * 2 : 0);
    }
};

// Bytes that follow each other in memory, 16 at a time; all of them are multiples of 32 from aligned addresses.
__device__ inline void copy_run(u8* to, const void* from, long long at, int bytes, int lane) {
    for (int i = 16 * lane; i < bytes; i += 16 * 32) copy_async(to + i, static_cast<const u8*>(from) + at + i);
}

__device__ inline void fetch(const Problem& p, const Layout& layout, u8* stage, long long tile, int chunk, int lane) {
    const int column = chunk * kChunk;
    if (column < p.n) {
        const int columns = p.n - column < kChunk ? p.n - column : kChunk;
        const int row_bytes = (p.n + 7) / 8, bytes = (columns + 7) / 8, step = p.planes * kTile;
        const int group = column / 8 / p.group_bytes, groups = (column / 8 + bytes - 1) / p.group_bytes - group + 1;
        copy_run(stage, p.codes, (tile * row_bytes + chunk * kBytes) * step, bytes * step, lane);
        if (p.signs) {
            const int words = (p.n + 31) / 32;
            copy_run(stage + layout.signs, p.signs, (tile * words + column / 32) * kTile, (columns + 31) / 32 * kTile, lane);
        }
        const int scales = p.scale_planes * kTile * 2;
        copy_run(stage + layout.scale, p.scale, (tile * p.groups + group) * scales, groups * scales, lane);
        if (p.offset)
            copy_run(stage + layout.offset, p.offset, (tile * p.groups + group) * kTile * 2, groups * kTile * 2, lane);
    }
    commit_copies();
}

// What activation k counts in pattern e. A nibble of a plane: its bits. Sparse ternary: the place of the zero in two
// bits, and whether the second and the third of the others differ in sign from the first.
__device__ inline float coefficient(int e, int k, bool sparse) {
    if (!sparse) return static_cast<float>(e >> k & 1);
    const int zero = e >> 2, place = k - (k > zero);
    if (k == zero) return 0;
    return place && (e >> (2 - place) & 1) ? -1.0f : 1.0f;
}

template <int batch>
__device__ void fill_tables(const Problem& p, float* tables, int column, int lane) {
    float weights[4];
    for (int k = 0; k < 4; ++k) weights[k] = coefficient(lane % 16, k, p.signs != nullptr);
    for (int b = 0; b < batch; ++b)
        for (int t = lane / 16; t < kTables; t += 2) {
            float sum = 0;
            for (int k = 0; k < 4; ++k) {
                const int j = column + 4 * t + k;
                if (j < p.n && weights[k] != 0) sum += weights[k] * to_float(p.x[1LL * b * p.n + j]);
            }
            tables[(b * kTables + t) * 16 + lane % 16] = sum;
        }
}

template <int batch>
__device__ void look_up(const Problem& p, const Layout& layout, const u8* stage, const float* tables, int column, int lane,
                        float sums[batch]) {
    const u16* scales = reinterpret_cast<const u16*>(stage + layout.scale);
    const u16* offsets = reinterpret_cast<const u16*>(stage + layout.offset);
    // Groups are whole bytes; they are counted, not divided out, but for once a chunk.
    int group = 0, left = p.group_bytes - column / 8 % p.group_bytes;
    const int bytes = p.n - column < kChunk ? (p.n - column + 7) / 8 : kBytes;
    for (int byte = 0; byte < bytes; ++byte, --left) {
        if (left == 0) {
            ++group;
            left = p.group_bytes;
        }
        const float* table = tables + 2 * byte * 16;
        for (int plane = 0; plane < p.planes; ++plane) {
            const int code = stage[(byte * p.planes + plane) * kTile + lane], low = code & 15, high = code >> 4;
            const int scale_plane = p.scale_planes > 1 ? plane : 0;
            float scale = half_to_float(scales[(group * p.scale_planes + scale_plane) * kTile + lane]);
            if (p.scale_planes == 1) scale *= static_cast<float>(1 << plane);
            float low_scale = scale, high_scale = scale;
            if (p.signs) {
                const int bits = stage[layout.signs + byte / 4 * kTile + lane] >> byte % 4 * 2;
                low_scale = bits & 1 ? -scale : scale;
                high_scale = bits & 2 ? -scale : scale;
            }
            for (int b = 0; b < batch; ++b) {
                const float* of_row = table + b * kTables * 16;
                sums[b] += low_scale * of_row[low] + high_scale * of_row[16 + high];
            }
        }
        if (p.offset) {
            const float offset = half_to_float(offsets[group * kTile + lane]);
            for (int b = 0; b < batch; ++b) {
                const float* of_row = table + b * kTables * 16;
                sums[b] += offset * (of_row[15] + of_row[31]);
            }
        }
    }
}

template <int batch>
__device__ void gemv(const Problem& p) {
    DYNAMIC_SHARED(shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const int chunks = (p.n + kChunk - 1) / kChunk;
    const Layout layout(p);
    u8* stages = shared + warp * (kStages * layout.bytes + batch * kTables * 64);
    float* tables = reinterpret_cast<float*>(stages + kStages * layout.bytes);
    float sums[batch];
    for (int b = 0; b < batch; ++b) sums[b] = 0;

    for (int s = 0; s < kStages - 1; ++s)
        fetch(p, layout, stages + s * layout.bytes, blockIdx.x, warp + s * warps, lane);
    for (int chunk = warp, turn = 0; chunk < chunks; chunk += warps, ++turn) {
        const int ahead = kStages - 1;
        fetch(p, layout, stages + (turn + ahead) % kStages * layout.bytes, blockIdx.x, chunk + ahead * warps, lane);
        fill_tables<batch>(p, tables, chunk * kChunk, lane);
        wait_copies<kStages - 1>();
        __syncwarp();
        look_up<batch>(p, layout, stages + turn % kStages * layout.bytes, tables, chunk * kChunk, lane, sums);
        __syncwarp();
    }
    wait_copies<0>();
    __syncthreads();
    float* parts = reinterpret_cast<float*>(shared);  // (warps, batch, 32), where the stages were
    for (int b = 0; b < batch; ++b) parts[(warp * batch + b) * kTile + lane] = sums[b];
    __syncthreads();
    for (int i = threadIdx.x; i < batch * kTile; i += blockDim.x) {
        const int row = blockIdx.x * kTile + i % kTile;
        float sum = 0;
        for (int w = 0; w < warps; ++w) sum += parts[w * batch * kTile + i];
        if (row < p.m) p.y[1LL * (i / kTile) * p.m + row] = from_float(sum);
    }
}

#define LOOKUP(name, batch)                                                                                          \
    KERNEL(name)(const u16* x, const u8* codes, const u8* signs, const u16* scale, const u16* offset, u16* y, int m, \
                 int n, int planes, int scale_planes, int group_bytes, int groups, int span) {                       \
        gemv<batch>({x, codes, signs, scale, offset, y, m, n, planes, scale_planes, group_bytes, groups, span});     \
    }

LOOKUP(lookup_1, 1)
LOOKUP(lookup_2, 2)
LOOKUP(lookup_4, 4)
LOOKUP(lookup_8, 8)
