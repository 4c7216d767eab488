// DFloat11 to bfloat16, bit for bit: the stored form of harness.packed.DFloat11, any number of tensors in one launch.
//
// `tables` has a block for each tensor and turns its 256 code lengths into what decoding looks up, once. In `decode` a block
// takes 512 chunks of eight bytes of one stream, a thread one chunk, in two phases: it counts the codes that start in
// its chunk, the block adds the counts up, and the thread decodes again, to the place that is now known. Exponents
// gather in shared memory, from where they are joined with signs and mantissas and leave in order.
#include "device.cuh"

constexpr int kChunk = 8, kThreads = 512, kSymbols = 256, kLongest = 32, kShort = 10;
constexpr int kMostNumbers = 8 * kChunk * kThreads;  // a code has one bit at least

// By the first ten bits a symbol and its length, or length 0 where the code is longer; then by length the first code
// above those of this length, put to the left of 32 bits, and what to subtract from a code to get its symbol's rank.
struct Tables {
    u16 short_codes[1 << kShort];
    u64 limit[kLongest + 1];
    u32 base[kLongest + 1];
    u8 symbols[kSymbols + 12];
};

struct Stream {
    const u8* stream;
    const u8* gaps;
    const int* positions;
    const u8* lengths;
    const u8* rest;
    long long first, bytes, numbers;  // where its numbers begin in the output; bytes of the stream
};

KERNEL(tables)(const Stream* streams, Tables* all) {
    DYNAMIC_SHARED(shared);
    int* count = reinterpret_cast<int*>(shared);          // by length
    u32* first = reinterpret_cast<u32*>(count + kLongest + 1);  // code
    int* before = reinterpret_cast<int*>(first + kLongest + 1);  // symbols of shorter codes
    const u8* lengths = streams[blockIdx.x].lengths;
    Tables& to = all[blockIdx.x];
    const int symbol = threadIdx.x, length = lengths[symbol];
    if (symbol <= kLongest) count[symbol] = 0;
    __syncthreads();
    if (length && length <= kLongest) atomicAdd(&count[length], 1);
    __syncthreads();
    if (symbol == 0) {
        u64 code = 0;
        int seen = 0;
        for (int l = 0; l <= kLongest; ++l) {
            code = l ? code << 1 : 0;
            const int found = l ? count[l] : 0;
            first[l] = static_cast<u32>(code);
            before[l] = seen;
            to.base[l] = static_cast<u32>(code) - seen;
            code += found;
            seen += found;
            to.limit[l] = code << (kLongest - l);
        }
    }
    for (int i = symbol; i < 1 << kShort; i += kSymbols) to.short_codes[i] = 0;
    __syncthreads();
    if (!length || length > kLongest) return;
    int rank = 0;
    for (int other = 0; other < symbol; ++other) rank += lengths[other] == length;
    if (before[length] + rank < kSymbols) to.symbols[before[length] + rank] = symbol;
    if (length > kShort) return;
    const u32 from = (first[length] + rank) << (kShort - length);
    for (u32 i = from; i < from + (1u << (kShort - length)) && i < 1u << kShort; ++i)
        to.short_codes[i] = symbol << 8 | length;
}

// The next 32 bits of the stream from a bit of this thread's chunk on.
struct Window {
    u64 chunk;
    u32 next;
    __device__ u32 at(int bit) const {
        const u64 shifted = chunk << bit;
        return static_cast<u32>(shifted >> 32) | (bit > 32 ? static_cast<u32>((static_cast<u64>(next) << (bit - 32)) >> 32) : 0);
    }
};

__device__ inline u64 big_endian(const Stream& s, long long at, int bytes) {
    u64 word = 0;
    for (int i = 0; i < bytes; ++i) word = word << 8 | (at + i < s.bytes ? s.stream[at + i] : 0);
    return word;
}

__device__ inline u32 swapped(u32 word) { return __byte_perm(word, 0, 0x0123); }

__device__ inline Window window_at(const Stream& s, long long at) {
    if (at + 12 > s.bytes) return {big_endian(s, at, 8), static_cast<u32>(big_endian(s, at + 8, 4))};
    const u32* words = reinterpret_cast<const u32*>(s.stream + at);
    return {static_cast<u64>(swapped(words[0])) << 32 | swapped(words[1]), swapped(words[2])};
}

// Step through the codes that start in a chunk; their exponents go to `out`, unless that is null. Gives their number.
__device__ inline int walk(const Tables& t, const Window& window, int bit, int end, u8* out, int room) {
    int found = 0;
    while (bit < end) {
        const u32 bits = window.at(bit), entry = t.short_codes[bits >> (32 - kShort)];
        int length = entry & 255, symbol = entry >> 8;
        if (!length) {
            length = kShort + 1;
            while (length < kLongest && bits >= t.limit[length]) ++length;
            symbol = t.symbols[((bits >> (kLongest - length)) - t.base[length]) & (kSymbols - 1)];
        }
        if (out && found < room) out[found] = symbol;
        ++found;
        bit += length;
    }
    return found;
}

// The sum of the counts of the threads before this one.
__device__ inline int count_before(int mine, int* of_warps) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int sum = mine;
    for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(0xFFFFFFFFu, sum, step);
        if (lane >= step) sum += other;
    }
    if (lane == 31) of_warps[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; ++w) sum += of_warps[w];
    return sum - mine;
}

// `first_blocks` (tensors + 1): the block that each tensor begins with.
KERNEL(decode)(const Stream* streams, const Tables* all, const int* first_blocks, u16* to, int tensors) {
    DYNAMIC_SHARED(shared);
    u8* exponents = shared;
    Tables& table = *reinterpret_cast<Tables*>(shared + kMostNumbers);
    int* of_warps = reinterpret_cast<int*>(shared + kMostNumbers + sizeof(Tables));
    int low = 0, high = tensors;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (static_cast<int>(blockIdx.x) >= first_blocks[middle]) low = middle;
        else high = middle;
    }
    const Stream s = streams[low];
    const long long block = blockIdx.x - first_blocks[low], blocks = first_blocks[low + 1] - first_blocks[low];
    const u32* words = reinterpret_cast<const u32*>(all + low);
    for (int i = threadIdx.x; i < static_cast<int>(sizeof(Tables) / 4); i += blockDim.x)
        reinterpret_cast<u32*>(&table)[i] = words[i];
    const long long start = s.positions[block], stop = block + 1 < blocks ? s.positions[block + 1] : s.numbers;
    if (start < 0 || stop > s.numbers || stop - start > kMostNumbers) return;  // of no stream that was packed
    const int numbers = static_cast<int>(stop - start);
    __syncthreads();

    const long long chunk = block * kThreads + threadIdx.x, at = chunk * kChunk;
    int mine = 0, gap = 0, end = 0;
    Window window = {0, 0};
    if (at < s.bytes) {
        window = window_at(s, at);
        gap = code_at(s.gaps, chunk, 5);
        end = s.bytes - at < kChunk ? static_cast<int>(8 * (s.bytes - at)) : 8 * kChunk;
        mine = walk(table, window, gap, end, nullptr, 0);
    }
    const int before = count_before(mine, of_warps);
    // The last codes of a stream may be followed by bits that only fill its byte up.
    if (before < numbers) walk(table, window, gap, end, exponents + before, numbers - before);
    __syncthreads();

    const u8* rest = s.rest + start;
    u16* out = to + s.first + start;
    for (int i = threadIdx.x; i < numbers; i += blockDim.x)
        out[i] = static_cast<u16>((rest[i] & 0x80) << 8 | exponents[i] << 7 | (rest[i] & 0x7F));
}
