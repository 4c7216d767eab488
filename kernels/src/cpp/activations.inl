// Activations as the products with uniform codes want them: rounded where asked for, in the order in which unpacking
// by shifts yields the codes, so that nothing of the weight has to be moved. Scales and zero points of a row in floats.
// No templates of the standard library here: an inline function compiled for this instruction set must not be picked
// by the linker for another machine.

template <int F, bool INT8>
struct Shape {
    static constexpr int V = 4 * Isa::L;  // bytes of a vector
    static constexpr int lane = F == kBase3 ? 20 : F == kThree ? (INT8 ? 4 : 8) : 32 / F;
    static constexpr int tile = Isa::L * lane;                                     // columns of one step
    static constexpr int bytes = F == kThree ? tile * 3 / 8 : V;                   // of stored codes
    static constexpr int block = F == kBase3 ? 320 : F == kThree ? 64 : 512 / F;   // columns sharing an int8 scale
    static constexpr int span = INT8 ? block / tile : 1;                           // tiles whose sums stay integers
    static constexpr int fields = INT8 ? Isa::template Int<F>::fields : 1;         // vectors that a tile unpacks to
    static constexpr int elements = tile / fields;                                 // of such a vector
    // A code is worth unit * (level + centre - zero) * scale in terms of the level that is multiplied.
    static constexpr float centre = INT8 ? 0 : Isa::template centre<F>;
    static constexpr float unit = INT8 ? Isa::template Int<F>::unit : Isa::template unit<F>;
};

template <int F, bool INT8>
struct ElementOf { using type = float; };
template <int F>
struct ElementOf<F, true> { using type = typename Isa::template Int<F>::X; };
template <int F, bool INT8>
using Element = typename ElementOf<F, INT8>::type;

#define HARNESS_INLINE __attribute__((always_inline))

template <int K>
struct Number { static constexpr int value = K; };

// f(Number<0>), f(Number<1>)... with the counter as a type, all in the caller's registers.
template <int N, int K = 0, class Function>
HARNESS_INLINE inline void each(Function&& f) {
    if constexpr (K < N) {
        f(Number<K>{});
        each<N, K + 1>(f);
    }
}

// Weights are read once for a product: into the first cache past the others, which saves what these would write back.
HARNESS_INLINE inline void fetch_once(const void* p) { __builtin_prefetch(p, 0, 0); }

constexpr int64_t kAhead = 4096;  // bytes from what is read to what is fetched

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

inline void widen(const uint16_t* half, float* out, int64_t count) {
    int64_t i = 0;
    for (; i + Isa::L <= count; i += Isa::L) Isa::store(out + i, Isa::from_half(half + i));
    if (i == count) return;
    uint16_t rest[Isa::L] = {};
    float wide[Isa::L];
    for (int64_t k = i; k < count; ++k) rest[k - i] = half[k];
    Isa::store(wide, Isa::from_half(rest));
    for (int64_t k = i; k < count; ++k) out[k] = wide[k - i];
}

inline float dot(const float* a, const float* b, int64_t count) {
    auto sum = Isa::zero_float();
    int64_t i = 0;
    for (; i + Isa::L <= count; i += Isa::L) sum = Isa::fma(Isa::load(a + i), Isa::load(b + i), sum);
    float total = Isa::total(sum);
    for (; i < count; ++i) total += a[i] * b[i];
    return total;
}

// `count` integers of `width` bits, from bit `bit` of a string of `bytes`.
inline void widen_bits(const uint8_t* string, int64_t bytes, int64_t bit, int width, float* out, int64_t count) {
    int64_t i = 0;
    uint64_t word = 0;
    for (; i + 8 <= count && bit / 8 + 8 <= bytes; i += 8, bit += 8 * width) {
        __builtin_memcpy(&word, string + bit / 8, 8);  // little-endian machines only, as everywhere here
        Isa::split(static_cast<uint32_t>(word >> bit % 8), width, out + i);
    }
    for (; i < count; i += 8, bit += 8 * width) {
        word = 0;
        for (int64_t k = 0; k < least(8, bytes - bit / 8); ++k)
            word |= static_cast<uint64_t>(string[bit / 8 + k]) << 8 * k;
        float eight[8];
        Isa::split(static_cast<uint32_t>(word >> bit % 8), width, eight);
        for (int64_t k = 0; k < 8 && i + k < count; ++k) out[i + k] = eight[k];
    }
}

// Zero points of a row as they are stored, one for each group.
inline void zeros_of(const Uniform& u, int64_t row, float* out) {
    const int64_t first = u.scale_stride ? row * u.groups : 0;
    const int64_t count = u.scale_stride ? u.groups : 1;
    if (u.zero_half) {
        widen(u.zero_half + first, out, count);
    } else if (u.zero_bits && u.zero_width == 8) {
        for (int64_t g = 0; g < count; ++g) out[g] = u.zero_bits[first + g];
    } else if (u.zero_bits) {
        widen_bits(u.zero_bits, u.zero_bytes, first * u.zero_width, u.zero_width, out, count);
    } else {
        for (int64_t g = 0; g < count; ++g) out[g] = u.zero_constant;
    }
    for (int64_t g = count; g < u.groups; ++g) out[g] = out[0];
}

inline void scales_of(const Uniform& u, int64_t row, float* out) {
    widen(u.scale + row * u.scale_stride, out, u.scale_stride ? u.groups : 1);
    if (!u.scale_stride)
        for (int64_t g = 1; g < u.groups; ++g) out[g] = out[0];
}

// x rounded to 8 bits, ties to even; gives the step. What is not finite makes the step so, and zeros.
inline float quantize(const float* x, int64_t n, int8_t* q) {
    auto most = Isa::zero_float(), poison = Isa::zero_float();
    int64_t j = 0;
    for (; j + Isa::L <= n; j += Isa::L) {
        const auto v = Isa::load(x + j);
        most = Isa::greater(most, Isa::magnitude(v));
        poison = Isa::fma(v, Isa::zero_float(), poison);  // not a number if one of them is not finite
    }
    float parts[Isa::L], largest = 0, bad = Isa::total(poison);
    Isa::store(parts, most);
    for (int i = 0; i < Isa::L; ++i) largest = parts[i] > largest ? parts[i] : largest;
    for (; j < n; ++j) {
        const float size = __builtin_fabsf(x[j]);
        largest = size > largest ? size : largest;
        bad += x[j] * 0.0f;
    }
    if (bad != 0) {
        for (j = 0; j < n; ++j) q[j] = 0;
        return bad;
    }
    // A denormal maximum overflows the inverse: such a block counts as zero.
    const float inverse = largest > 0 ? 127 / largest : 0, factor = inverse < 1e38f ? inverse : 0;
    for (j = 0; j < n; ++j) q[j] = static_cast<int8_t>((x[j] * factor + 12582912.0f) - 12582912.0f);
    return largest / 127;
}

// The sum of the activations of each group.
inline void sum_groups(const Uniform& u, const float* x, float* sums) {
    for (int64_t g = 0; g < u.groups; ++g) {
        double sum = 0;
        for (int64_t j = g * u.group; j < least((g + 1) * u.group, u.n); ++j) sum += x[j];
        sums[g] = static_cast<float>(sum);
    }
}

// One row of activations, rounded. Several planes add up to it: each has what the ones before it left.
template <int F>
void prepare_rounded(const Uniform& u, const Activations& a, int64_t row) {
    using S = Shape<F, true>;
    const float* x = u.x + row * u.n;
    float* sums = a.group_sum + row * u.groups;
    alignas(64) int8_t natural[S::block];
    alignas(64) float rest[S::block];
    for (int64_t g = 0; g < u.groups; ++g) sums[g] = 0;
    for (int64_t from = 0; from < u.n; from += S::block) {
        const int64_t count = least(S::block, u.n - from);
        for (int64_t j = 0; j < count; ++j) rest[j] = x[from + j];
        for (int k = 0; k < S::block; ++k) natural[k] = 0;
        for (int64_t plane = row * u.planes; plane < (row + 1) * u.planes; ++plane) {
            auto* values = static_cast<Element<F, true>*>(a.values) + plane * a.stride;
            const float step = quantize(rest, count, natural);
            a.tile_scale[plane * a.tiles + from / S::block] = step;
            for (int64_t j = 0; j < count; ++j) rest[j] -= static_cast<float>(natural[j]) * step;
            for (int64_t at = 0; at < S::block && from + at < u.n; at += S::tile)
                for (int p = 0; p < S::fields; ++p)
                    for (int j = 0; j < S::elements; ++j)
                        values[from + at + p * S::elements + j] = natural[at + j * S::fields + p];
            for (int64_t j = 0; u.planes == 1 && j < count;) {
                const int64_t g = (from + j) / u.group, end = least((g + 1) * u.group - from, count);
                int sum = 0;
                for (; j < end; ++j) sum += natural[j];
                sums[g] += static_cast<float>(sum) * step;
            }
        }
    }
    for (int64_t plane = row * u.planes; plane < (row + 1) * u.planes; ++plane)
        for (int64_t j = a.tiles * S::tile; j < a.stride; ++j)
            static_cast<Element<F, true>*>(a.values)[plane * a.stride + j] = 0;
    if (u.planes > 1) sum_groups(u, x, sums);
}

template <int F>
void prepare_float(const Uniform& u, const Activations& a, int64_t row) {
    using S = Shape<F, false>;
    const float* x = u.x + row * u.n;
    auto* values = static_cast<float*>(a.values) + row * a.stride;
    for (int64_t t = 0; t < a.tiles; ++t) {
        const bool whole = (t + 1) * S::tile <= u.n;
        for (int step = 0; step < S::lane; ++step)
            for (int lane = 0; lane < Isa::L; ++lane) {
                const int in_lane = F == kBase3 ? 5 * (step % 4) + step / 4 : step;
                const int64_t j = t * S::tile + lane * S::lane + in_lane;
                values[t * S::tile + step * Isa::L + lane] = whole || j < u.n ? x[j] : 0;
            }
    }
    sum_groups(u, x, a.group_sum + row * u.groups);
}

// Factors of one row for one row of activations: one for each span of tiles...
template <int F, bool INT8, int SPAN>
void span_factors(const Uniform& u, const Activations& a, const float* scale, const float* step, float* out) {
    using S = Shape<F, INT8>;
    const int64_t spans = ceil_div(a.tiles, SPAN), each = u.groups == 1 ? spans : u.group / (SPAN * S::tile);
    if (each == 1 && (!INT8 || SPAN == S::span)) {
        for (int64_t s = 0; s < spans; ++s) out[s] = (INT8 ? scale[s] * step[s] : scale[s]) * S::unit;
        return;
    }
    for (int64_t g = 0, s = 0; s < spans; ++g)
        for (const int64_t end = least((g + 1) * each, spans); s < end; ++s)
            out[s] = (INT8 ? scale[g] * step[s * SPAN / S::span] : scale[g]) * S::unit;
}

// ...or one for each lane of each tile, where groups are smaller than a tile.
template <int F, bool INT8>
void lane_factors(const Uniform& u, const Activations& a, const float* scale, const float* step, float* out) {
    using S = Shape<F, INT8>;
    const bool even = S::tile % u.group == 0;
    int32_t index[Isa::L];
    for (int l = 0; l < Isa::L; ++l) index[l] = static_cast<int32_t>(l * S::lane / u.group);
    const auto spread = Isa::indices(index);
    for (int64_t t = 0; t < a.tiles; ++t) {
        float* at = out + t * Isa::L;
        if (even) {
            Isa::store(at, Isa::spread(scale + t * (S::tile / u.group), spread));
        } else {
            for (int l = 0; l < Isa::L; ++l) at[l] = scale[least((t * S::tile + l * S::lane) / u.group, u.groups - 1)];
        }
        const float worth = (INT8 ? step[t / S::span] : 1.0f) * S::unit;
        Isa::store(at, Isa::mul(Isa::load(at), Isa::broadcast(&worth)));
    }
}
