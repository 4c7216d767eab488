// Products with group-wise uniform codes, written once over the vectors of one instruction set (`Isa`).
//
// The stored bytes of a row are read as they are. One step ("tile") is one vector of codes: a vector of V bytes, seen
// as L = V / 4 words of 32 bits ("lanes"), each of which holds consecutive columns. Sums of a span of tiles are scaled
// in registers; zero points act on sums of activations, once for each group and row.

template <int F, bool INT8, bool TAIL>
typename Isa::I stored(const uint8_t* p, int64_t bytes) {
    using S = Shape<F, INT8>;
    if constexpr (F == kThree && INT8) return Isa::bytes_of_three(p, TAIL ? bytes : 2 * S::bytes);
    if constexpr (F == kThree) return Isa::words_of_three(p, TAIL ? bytes : 2 * S::bytes);
    if constexpr (TAIL) return Isa::load_part(p, bytes);
    return Isa::load_codes(p);
}

// One span of R rows of the weight by B rows of activations. Counters are types, so that all of it stays in registers.
template <int F, int R, int B, int SPAN, bool LANES>
struct IntegerStep {
    using S = Shape<F, true>;
    using X = Element<F, true>;
    using Int = typename Isa::template Int<F>;

    template <bool TAIL>
    static HARNESS_INLINE inline void run(const uint8_t* const* w, const X* const* x, const float* const* f, int64_t s,
                                          int64_t tiles, int64_t row_bytes, int64_t ahead, typename Isa::F* sum) {
        typename Isa::I partial[R * B][Int::sums];
        each<R * B>([&](auto i) HARNESS_INLINE {
            each<Int::sums>([&](auto k) HARNESS_INLINE { partial[i.value][k.value] = Isa::zero(); });
        });
        each<SPAN>([&](auto k) HARNESS_INLINE {
            const int64_t t = s * SPAN + k.value;
            if (TAIL && t >= tiles) return;
            each<R>([&](auto r) HARNESS_INLINE {
                const uint8_t* at = w[r.value] + t * S::bytes;
                typename Isa::I q[S::fields];
                Int::unpack(stored<F, true, TAIL>(at, row_bytes - t * S::bytes), q);
                if (B == 1 && !TAIL && k.value == 0) __builtin_prefetch(at + ahead);
                each<B * S::fields>([&](auto i) HARNESS_INLINE {
                    constexpr int b = decltype(i)::value / S::fields, p = decltype(i)::value % S::fields;
                    const auto values = Isa::load_integers(x[b] + t * S::tile + p * S::elements);
                    Int::template add<p>(partial[r.value * B + b], q[p], values);
                });
            });
        });
        each<R * B>([&](auto i) HARNESS_INLINE {
            const float* at = f[i.value];
            const auto factor = LANES ? Isa::load(at + s * Isa::L) : Isa::broadcast(at + s);
            sum[i.value] = Isa::fma(Isa::to_float(Int::finish(partial[i.value])), factor, sum[i.value]);
        });
    }
};

template <int F, int R, int B, bool LANES>
struct FloatStep {
    using S = Shape<F, false>;

    template <bool TAIL>
    static HARNESS_INLINE inline void run(const uint8_t* const* w, const float* const* x, const float* const* f,
                                          int64_t t, int64_t, int64_t row_bytes, int64_t ahead, typename Isa::F* sum) {
        typename Isa::F total[R * B];
        typename Isa::I q[R];
        each<R * B>([&](auto i) HARNESS_INLINE { total[i.value] = Isa::zero_float(); });
        each<R>([&](auto r) HARNESS_INLINE {
            const uint8_t* at = w[r.value] + t * S::bytes;
            q[r.value] = stored<F, false, TAIL>(at, row_bytes - t * S::bytes);
            if (B == 1 && !TAIL) __builtin_prefetch(at + ahead);
        });
        const auto multiply = [&](auto k, auto r, typename Isa::F level) HARNESS_INLINE {
            each<B>([&](auto b) HARNESS_INLINE {
                const auto values = Isa::load(x[b.value] + t * S::tile + k.value * Isa::L);
                total[r.value * B + b.value] = Isa::fma(level, values, total[r.value * B + b.value]);
            });
        };
        if constexpr (F == kBase3) {
            typename Isa::I digits[R][5];
            each<R>([&](auto r) HARNESS_INLINE { Isa::digits(q[r.value], digits[r.value]); });
            each<20>([&](auto k) HARNESS_INLINE {
                constexpr int digit = decltype(k)::value / 4, byte = decltype(k)::value % 4;
                each<R>([&](auto r) HARNESS_INLINE {
                    multiply(k, r, Isa::template trit<byte>(digits[r.value][digit]));
                });
            });
        } else {
            each<S::lane>([&](auto k) HARNESS_INLINE {
                each<R>([&](auto r) HARNESS_INLINE {
                    multiply(k, r, Isa::template level<F, decltype(k)::value>(q[r.value]));
                });
            });
        }
        each<R * B>([&](auto i) HARNESS_INLINE {
            const float* at = f[i.value / B];
            const auto factor = LANES ? Isa::load(at + t * Isa::L) : Isa::broadcast(at + t);
            sum[i.value] = Isa::fma(total[i.value], factor, sum[i.value]);
        });
    }
};

template <int F, bool INT8, int R, int B, int SPAN, bool LANES>
struct StepOf { using type = FloatStep<F, R, B, LANES>; };
template <int F, int R, int B, int SPAN, bool LANES>
struct StepOf<F, true, R, B, SPAN, LANES> { using type = IntegerStep<F, R, B, SPAN, LANES>; };

// Scales and scaled zero points of some rows.
struct Groups {
    float *scale, *zero;
    int64_t stride;
};

// R rows of the weight by B rows of activations. Rows beyond the last are computed again and not written.
template <int F, bool INT8, int R, int B, int SPAN, bool LANES>
void block(const Uniform& u, const Activations& a, int64_t row, int64_t first, bool fresh, const Groups& groups,
           int skip, float* factor_space) {
    using S = Shape<F, INT8>;
    using X = Element<F, INT8>;
    using Step = typename StepOf<F, INT8, R, B, SPAN, LANES>::type;
    constexpr int kinds = INT8 ? B : 1;  // Factors of floating activations do not depend on the batch.
    const uint8_t* w[R];
    const X* x[B];
    const float* f[R * kinds];
    for (int b = 0; b < B; ++b) x[b] = static_cast<const X*>(a.values) + (first + b) * a.stride;
    const int64_t spans = ceil_div(a.tiles, SPAN), width = spans * (LANES ? Isa::L : 1);
    for (int r = 0; r < R; ++r) {
        w[r] = u.codes + least(row + r, u.m - 1) * u.row_bytes;
        const float* scale = groups.scale + (skip + r) * groups.stride;
        for (int b = 0; b < kinds; ++b) {
            float* out = factor_space + (r * kinds + b) * width;
            const float* step = a.tile_scale + (first + b) * a.tiles;
            if (INT8 || fresh) {
                if constexpr (LANES) lane_factors<F, INT8>(u, a, scale, step, out);
                else span_factors<F, INT8, SPAN>(u, a, scale, step, out);
            }
            f[r * kinds + b] = out;
        }
    }
    typename Isa::F sum[R * B];
    each<R * B>([&](auto i) HARNESS_INLINE { sum[i.value] = Isa::zero_float(); });
    // Tiles of three bits are read with four bytes beyond their end, which have to be there.
    const int64_t readable = F != kThree ? a.tiles : u.row_bytes > 4 ? (u.row_bytes - 4) / S::bytes : 0;
    const int64_t full = least(u.n / S::tile, readable) / SPAN, ahead = R * u.row_bytes;
    for (int64_t s = 0; s < full; ++s) Step::template run<false>(w, x, f, s, a.tiles, u.row_bytes, ahead, sum);
    for (int64_t s = full; s < spans; ++s) Step::template run<true>(w, x, f, s, a.tiles, u.row_bytes, ahead, sum);
    for (int r = 0; r < R && row + r < u.m; ++r)
        for (int b = 0; b < B; ++b)
            u.y[(first + b) * u.m + row + r] =
                Isa::total(sum[r * B + b]) -
                dot(groups.zero + (skip + r) * groups.stride, a.group_sum + (first + b) * u.groups, u.groups);
}

template <int F, bool INT8, int SPAN, bool LANES>
void rows(const Uniform& u, const Activations& a, int64_t begin, int64_t end, float* scratch) {
    constexpr int R = INT8 ? Isa::rows<F> : Isa::float_rows, few = Isa::batch_rows;
    const int64_t padded = u.groups + 2 * Isa::L;
    const Groups groups{scratch, scratch + R * padded, padded};
    float* space = groups.zero + R * padded;
    for (int64_t row = begin; row < end; row += R) {
        for (int r = 0; r < R; ++r) {
            const int64_t at = least(row + r, u.m - 1);
            float *scale = groups.scale + r * padded, *zero = groups.zero + r * padded;
            scales_of(u, at, scale);
            zeros_of(u, at, zero);
            for (int64_t g = u.groups; g < padded; ++g) scale[g] = 0;  // read by whole vectors, for lanes without columns
            for (int64_t g = 0; g < u.groups; ++g) zero[g] = (zero[g] - Shape<F, INT8>::centre) * scale[g];
        }
        // Several rows of activations at a time have more accumulators, so fewer rows of the weight.
        const int64_t many = u.batch / Isa::batch * Isa::batch;
        if constexpr (Isa::batch > 1)
            for (int h = 0; h < R && row + h < u.m; h += few)
                for (int64_t b = 0; b < many; b += Isa::batch)
                    block<F, INT8, few, Isa::batch, SPAN, LANES>(u, a, row + h, b, b == 0, groups, h, space);
        for (int64_t b = Isa::batch > 1 ? many : 0; b < u.batch; ++b)
            block<F, INT8, R, 1, SPAN, LANES>(u, a, row, b, b == 0 || b == many, groups, 0, space);
    }
}

#include "sums.inl"

// Calls f with the format and the kind of activations as types.
template <class Function>
decltype(auto) choose(int format, bool int8, Function f) {
    const auto with = [&]<int F>() -> decltype(auto) {
        if (int8) return f.template operator()<F, true>();
        return f.template operator()<F, false>();
    };
    switch (format) {
        case kTwo: return with.template operator()<2>();
        case kThree: return with.template operator()<3>();
        case kBase3: return with.template operator()<5>();
        case kEight: return with.template operator()<8>();
        default: return with.template operator()<4>();
    }
}

int64_t tile_columns(int format, bool int8) {
    return choose(format, int8, []<int F, bool I>() -> int64_t { return Shape<F, I>::tile; });
}

int64_t lane_columns(int format, bool int8) {
    return choose(format, int8, []<int F, bool I>() -> int64_t {
        return F == kBase3 ? Shape<F, I>::block : Shape<F, I>::lane;
    });
}

int64_t activation_bytes(int format, bool int8) {
    return choose(format, int8, []<int F, bool I>() -> int64_t { return sizeof(Element<F, I>); });
}

// Floating activations are multiplied faster as three integers of eight bits than by turning codes into floats, where
// that takes many instructions for each code. They leave an error of 2**-24 of the largest of a block.
constexpr int kPlanes = 3;

int float_planes(const Uniform& u) {
    if (!Isa::unit_sums || (u.format != kTwo && u.format != kFour)) return 0;
    return u.groups == 1 || u.group % tile_columns(u.format, true) == 0 ? kPlanes : 0;
}

void uniform_prepare(const Uniform& u, const Activations& a, int64_t row) {
    choose(u.format, u.planes > 0, [&]<int F, bool I>() {
        if constexpr (I) prepare_rounded<F>(u, a, row);
        else prepare_float<F>(u, a, row);
    });
}

int64_t uniform_scratch(const Uniform& u, const Activations& a) {
    const int64_t blocks = 8 * (u.groups + 2 * Isa::L) + 8 * (a.tiles + 1) * Isa::L;  // of four rows, and eight products
    const int64_t sums = (u.batch * u.planes + u.batch + 20) * (u.groups + a.tiles + 2 * Isa::L);
    return blocks > sums ? blocks : sums;
}

void uniform_rows(const Uniform& u, const Activations& a, int64_t begin, int64_t end, float* scratch) {
    choose(u.format, u.planes > 0, [&]<int F, bool I>() {
        using S = Shape<F, I>;
        const auto run = [&]<int SPAN>() {
            if constexpr (I && Isa::unit_sums) {
                if constexpr (F == kTwo || F == kFour)
                    if (u.planes == kPlanes) return sum_rows<F, SPAN, kPlanes>(u, a, begin, end, scratch);
                sum_rows<F, SPAN, 1>(u, a, begin, end, scratch);
            } else {
                rows<F, I, SPAN, false>(u, a, begin, end, scratch);
            }
        };
        if (u.groups == 1 || u.group % (S::span * S::tile) == 0) return run.template operator()<S::span>();
        if constexpr (F != kBase3) {
            if constexpr (S::span > 1)
                if (u.group % S::tile == 0) return run.template operator()<1>();
            rows<F, I, 1, true>(u, a, begin, end, scratch);
        }
    });
}

// The codes of a row as floats, n of them.
template <int F>
void codes_of(const uint8_t* p, int64_t n, float* out) {
    if constexpr (F == kThree) {
        for (int64_t j = 0; j < n; ++j) {
            const int64_t at = 3 * j / 8;
            const int shift = static_cast<int>(3 * j % 8), high = shift > 5 ? p[at + 1] << 8 : 0;
            out[j] = static_cast<float>((p[at] | high) >> shift & 7);
        }
        return;
    }
    constexpr int count = F == kBase3 ? 5 : 8 / F;
    const auto decode = [&](int word, int64_t j, int most) __attribute__((always_inline)) {
        for (int k = 0; k < most; ++k) {
            if (F == kBase3) word = (word & 255) * 3;
            out[j + k] = static_cast<float>(F == kBase3 ? word >> 8 : word >> k * F & ((1 << F) - 1));
        }
    };
    int64_t j = 0;
    for (; j + count <= n; j += count) decode(p[j / count], j, count);
    if (j < n) decode(p[j / count], j, static_cast<int>(n - j));
}

// A row as floats. `scratch` as for `uniform_rows`.
void uniform_decode(const Uniform& u, int64_t row, float* out, float* scratch) {
    float *scale = scratch, *zero = scratch + u.groups + 2 * Isa::L;
    scales_of(u, row, scale);
    zeros_of(u, row, zero);
    choose(u.format, false, [&]<int F, bool>() { codes_of<F>(u.codes + row * u.row_bytes, u.n, out); });
    for (int64_t g = 0; g < u.groups; ++g) {
        const int64_t end = least((g + 1) * u.group, u.n);
        for (int64_t j = g * u.group; j < end; ++j) out[j] = (out[j] - zero[g]) * scale[g];
    }
}
