// Products with group-wise uniform codes, written once over the vectors of one instruction set (`Isa`).
//
// The stored bytes of a row are read as they are. One step ("tile") is one vector of codes: a vector of V bytes, seen
// as L = V / 4 words of 32 bits ("lanes"), each of which holds consecutive columns. The activations are put into the
// order in which unpacking by shifts yields the codes, so nothing of the weight has to be moved. Sums of a tile are
// scaled in registers, each lane by its group; zero points act on sums of activations, once for each group and row.
// No templates of the standard library here: an inline function compiled for this instruction set must not be picked
// by the linker for another machine.

template <int F, bool INT8>
struct Shape {
    static constexpr int V = 4 * Isa::L;
    static constexpr int vectors = F == kBase3 ? 5 : F == kThree ? 1 : 8 / F;      // of bytes, after unpacking
    static constexpr int lane = F == kBase3 ? 20 : F == kThree ? (INT8 ? 4 : 8) : 32 / F;
    static constexpr int tile = Isa::L * lane;
    static constexpr int bytes = F == kThree ? tile * 3 / 8 : V;                   // of stored codes
    static constexpr int block = F == kBase3 ? 320 : F == kThree ? 64 : 512 / F;   // columns sharing an int8 scale
    // What is subtracted from a code before it is multiplied; zero points are relative to it.
    static constexpr float centre = INT8 ? 0 : F == kBase3 ? 1 : static_cast<float>(1 << (F - 1));
    // Base 3 leaves its digits in the two high bits of a byte.
    static constexpr float unit = INT8 && F == kBase3 ? 1.0f / 64 : 1;
};

template <int K>
struct Number { static constexpr int value = K; };

// f(Number<0>), f(Number<1>)... with the counter as a type, all in the caller's registers.
template <int N, int K = 0, class Function>
__attribute__((always_inline)) inline void each(Function&& f) {
    if constexpr (K < N) {
        f(Number<K>{});
        each<N, K + 1>(f);
    }
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

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

// Column, inside a tile, of the k-th value of the order in which the kernel meets the activations.
template <int F, bool INT8>
int64_t column_of(int64_t k) {
    using S = Shape<F, INT8>;
    if constexpr (INT8) return (k % S::V) * S::vectors + k / S::V;
    const int64_t lane = k % Isa::L, step = k / Isa::L;
    if constexpr (F == kBase3) return 20 * lane + 5 * (step % 4) + step / 4;
    return lane * S::lane + step;
}

template <int F>
void quantize(const float* x, int64_t n, int8_t* q, float* tile_scale, int64_t tiles) {
    using S = Shape<F, true>;
    for (int64_t a = 0; a < n; a += S::block) {
        const int64_t b = a + S::block < n ? a + S::block : n;
        float largest = 0, poison = 0;
#pragma omp simd reduction(max : largest) reduction(+ : poison)
        for (int64_t j = a; j < b; ++j) {
            const float size = __builtin_fabsf(x[j]);
            largest = size > largest ? size : largest;
            poison += x[j] * 0.0f;  // not a number if one of them is not finite
        }
        const float step = largest / 127 + poison, inverse = largest > 0 && poison == 0 ? 127 / largest : 0;
        for (int64_t t = a / S::tile; t < ceil_div(b, S::tile) && t < tiles; ++t) tile_scale[t] = step * S::unit;
        // A denormal maximum overflows the inverse: such a block counts as zero.
        const float factor = inverse < 1e38f ? inverse : 0;
#pragma omp simd
        for (int64_t j = a; j < b; ++j) {
            const float rounded = (x[j] * factor + 12582912.0f) - 12582912.0f;  // to the nearest, ties to even
            q[j] = static_cast<int8_t>(poison == 0 ? static_cast<int>(rounded) : 0);
        }
    }
}

template <int F, bool INT8>
void prepare(const Uniform& u, const Activations& a, int64_t row) {
    using S = Shape<F, INT8>;
    const float* x = u.x + row * u.n;
    float* sums = a.group_sum + row * u.groups;
    if constexpr (INT8) {
        auto* values = static_cast<int8_t*>(a.values) + row * a.stride;
        float* scale = a.tile_scale + row * a.tiles;
        alignas(64) int8_t natural[S::block];
        for (int64_t g = 0; g < u.groups; ++g) sums[g] = 0;
        for (int64_t from = 0; from < u.n; from += S::block) {
            const int64_t count = from + S::block < u.n ? S::block : u.n - from;
            for (int k = 0; k < S::block; ++k) natural[k] = 0;
            quantize<F>(x + from, count, natural, scale + from / S::tile, a.tiles - from / S::tile);
            for (int64_t at = 0; at < S::block && from + at < u.n; at += S::tile) {
                int8_t* out = values + from + at;
                for (int p = 0; p < S::vectors; ++p)
                    for (int j = 0; j < S::V; ++j) out[p * S::V + j] = natural[at + j * S::vectors + p];
            }
            const float step = scale[from / S::tile] / S::unit;
            for (int64_t j = 0; j < count;) {
                const int64_t g = (from + j) / u.group, left = (g + 1) * u.group - from;
                const int64_t end = left < count ? left : count;
                int sum = 0;
                for (; j < end; ++j) sum += natural[j];
                sums[g] += static_cast<float>(sum) * step;
            }
        }
    } else {
        auto* values = static_cast<float*>(a.values) + row * a.stride;
        for (int64_t t = 0; t < a.tiles; ++t) {
            const bool whole = (t + 1) * S::tile <= u.n;
            for (int64_t k = 0; k < S::tile; ++k) {
                const int64_t j = t * S::tile + column_of<F, false>(k);
                values[t * S::tile + k] = whole || j < u.n ? x[j] : 0;
            }
        }
        for (int64_t g = 0; g < u.groups; ++g) {
            const int64_t end = (g + 1) * u.group < u.n ? (g + 1) * u.group : u.n;
            double sum = 0;
            for (int64_t j = g * u.group; j < end; ++j) sum += x[j];
            sums[g] = static_cast<float>(sum);
        }
    }
}

// zero - centre of each group of a row, times its scale.
inline void scaled_zeros(const Uniform& u, int64_t row, float centre, const float* scale, float* out) {
    const int64_t first = u.scale_stride ? row * u.groups : 0;
    const int64_t count = u.scale_stride ? u.groups : 1;
    if (u.zero_half) {
        widen(u.zero_half + first, out, count);
    } else if (u.zero_bits && u.zero_width == 8) {
        for (int64_t g = 0; g < count; ++g) out[g] = u.zero_bits[first + g];
    } else if (u.zero_bits) {
        const int width = u.zero_width, mask = (1 << width) - 1;
        for (int64_t g = 0; g < count; ++g) {
            const int64_t bit = (first + g) * width;
            const uint8_t* p = u.zero_bits + bit / 8;
            int word = p[0];
            if (bit % 8 + width > 8) word |= p[1] << 8;
            out[g] = static_cast<float>(word >> bit % 8 & mask);
        }
    } else {
        for (int64_t g = 0; g < count; ++g) out[g] = u.zero_constant;
    }
    for (int64_t g = 0; g < count; ++g) out[g] = (out[g] - centre) * scale[g];
    for (int64_t g = count; g < u.groups; ++g) out[g] = out[0];
}

inline float dot(const float* a, const float* b, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

// Factors of one row for one row of activations: one for each tile, or one for each lane of each tile.
template <int F, bool INT8, bool LANES>
void factors(const Uniform& u, const Activations& a, const float* scale, const float* tile_scale, float* out) {
    using S = Shape<F, INT8>;
    if constexpr (!LANES) {
        const int64_t span = u.groups == 1 ? a.tiles : u.group / S::tile;
        if (span <= 1) {
            for (int64_t t = 0; t < a.tiles; ++t) out[t] = INT8 ? scale[t] * tile_scale[t] : scale[t];
            return;
        }
        for (int64_t g = 0, t = 0; g < u.groups; ++g) {
            const int64_t end = (g + 1) * span < a.tiles ? (g + 1) * span : a.tiles;
            for (; t < end; ++t) out[t] = INT8 ? scale[g] * tile_scale[t] : scale[g];
        }
    } else {
        const bool even = S::tile % u.group == 0;
        int32_t index[Isa::L];
        for (int l = 0; l < Isa::L; ++l) index[l] = static_cast<int32_t>(l * S::lane / u.group);
        const auto spread = Isa::indices(index);
        for (int64_t t = 0; t < a.tiles; ++t) {
            if (even) {
                Isa::store(out + t * Isa::L, Isa::spread(scale + t * (S::tile / u.group), spread));
            } else {
                for (int l = 0; l < Isa::L; ++l) {
                    const int64_t g = (t * S::tile + l * S::lane) / u.group;
                    out[t * Isa::L + l] = scale[g < u.groups ? g : u.groups - 1];
                }
            }
            if constexpr (INT8)
                Isa::store(out + t * Isa::L, Isa::mul(Isa::load(out + t * Isa::L), Isa::broadcast(tile_scale + t)));
        }
    }
}

template <int F, bool INT8, bool TAIL>
typename Isa::I stored(const uint8_t* p, int64_t bytes) {
    using S = Shape<F, INT8>;
    if constexpr (F == kThree && INT8) return Isa::bytes_of_three(p, TAIL ? bytes : S::bytes);
    if constexpr (F == kThree) return Isa::words_of_three(p, TAIL ? bytes : S::bytes);
    if constexpr (TAIL) return Isa::load_part(p, bytes);
    return Isa::load_codes(p);
}

template <int F, int R, int B, bool LANES, bool TAIL>
void step_int8(const uint8_t* const* w, const int8_t* const* x, const float* const* f, int64_t t, int64_t bytes,
               typename Isa::F (&sum)[R][B], int64_t ahead) {
    using S = Shape<F, true>;
    typename Isa::I q[R][S::vectors];
    for (int r = 0; r < R; ++r) {
        Isa::template unpack<F>(stored<F, true, TAIL>(w[r] + t * S::bytes, bytes), q[r]);
        if constexpr (B == 1 && !TAIL) __builtin_prefetch(w[r] + t * S::bytes + ahead);
    }
    for (int b = 0; b < B; ++b) {
        for (int r = 0; r < R; ++r) {
            auto total = Isa::zero();
            for (int p = 0; p < S::vectors; ++p)
                total = Isa::template dot<F>(total, q[r][p], x[b] + t * S::tile + p * S::V);
            const float* at = f[r * B + b];
            const auto factor = LANES ? Isa::load(at + t * Isa::L) : Isa::broadcast(at + t);
            sum[r][b] = Isa::fma(Isa::to_float(total), factor, sum[r][b]);
        }
    }
}

template <int F, int R, int B, bool LANES, bool TAIL>
void step_float(const uint8_t* const* w, const float* const* x, const float* const* f, int64_t t, int64_t bytes,
                typename Isa::F (&sum)[R][B], int64_t ahead) {
    using S = Shape<F, false>;
    typename Isa::F total[R][B];
    for (int r = 0; r < R; ++r)
        for (int b = 0; b < B; ++b) total[r][b] = Isa::zero_float();
    typename Isa::I q[R];
    for (int r = 0; r < R; ++r) {
        q[r] = stored<F, false, TAIL>(w[r] + t * S::bytes, bytes);
        if constexpr (B == 1 && !TAIL) __builtin_prefetch(w[r] + t * S::bytes + ahead);
    }
    if constexpr (F == kBase3) {
        typename Isa::I digits[R][5];
        for (int r = 0; r < R; ++r) Isa::template unpack<F>(q[r], digits[r]);
        each<20>([&](auto k) __attribute__((always_inline)) {
            constexpr int digit = decltype(k)::value / 4, byte = decltype(k)::value % 4;
            for (int r = 0; r < R; ++r) {
                const auto level = Isa::template trit<byte>(digits[r][digit]);
                for (int b = 0; b < B; ++b)
                    total[r][b] = Isa::fma(level, Isa::load(x[b] + t * S::tile + k.value * Isa::L), total[r][b]);
            }
        });
    } else {
        for (int r = 0; r < R; ++r) q[r] = Isa::template prepare_levels<F>(q[r]);
        each<S::lane>([&](auto k) __attribute__((always_inline)) {
            for (int r = 0; r < R; ++r) {
                const auto level = Isa::template level<F, decltype(k)::value>(q[r]);
                for (int b = 0; b < B; ++b)
                    total[r][b] = Isa::fma(level, Isa::load(x[b] + t * S::tile + k.value * Isa::L), total[r][b]);
            }
        });
    }
    for (int r = 0; r < R; ++r)
        for (int b = 0; b < B; ++b) {
            const float* at = f[r];
            const auto factor = LANES ? Isa::load(at + t * Isa::L) : Isa::broadcast(at + t);
            sum[r][b] = Isa::fma(total[r][b], factor, sum[r][b]);
        }
}

// R rows of the weight by B rows of activations. Rows beyond the last are computed again and not written.
template <int F, bool INT8, int R, int B, bool LANES>
void block(const Uniform& u, const Activations& a, int64_t row, int64_t first, bool fresh, const float* scale,
           const float* zeros, float* factor_space) {
    using S = Shape<F, INT8>;
    using X = decltype([] { if constexpr (INT8) return int8_t{}; else return float{}; }());
    const uint8_t* w[R];
    const X* x[B];
    const float* f[R * B];
    for (int b = 0; b < B; ++b) x[b] = static_cast<const X*>(a.values) + (first + b) * a.stride;
    const int64_t width = a.tiles * (LANES ? Isa::L : 1), padded_groups = u.groups + 2 * Isa::L;
    for (int r = 0; r < R; ++r) {
        const int64_t at = row + r < u.m ? row + r : u.m - 1;
        w[r] = u.codes + at * u.row_bytes;
        for (int b = 0; b < (INT8 ? B : 1); ++b) {
            float* out = factor_space + (r * (INT8 ? B : 1) + b) * width;
            // Factors of floating activations do not depend on the batch: those of the first block serve the others.
            if (INT8 || fresh)
                factors<F, INT8, LANES>(u, a, scale + r * padded_groups, a.tile_scale + (first + b) * a.tiles, out);
            f[r * (INT8 ? B : 1) + b] = out;
        }
    }
    typename Isa::F sum[R][B];
    for (int r = 0; r < R; ++r)
        for (int b = 0; b < B; ++b) sum[r][b] = Isa::zero_float();
    const int64_t full = u.n / S::tile, ahead = R * u.row_bytes;
    const auto step = [&]<bool TAIL>(int64_t t, int64_t bytes) __attribute__((always_inline)) {
        if constexpr (INT8) step_int8<F, R, B, LANES, TAIL>(w, x, f, t, bytes, sum, ahead);
        else step_float<F, R, B, LANES, TAIL>(w, x, f, t, bytes, sum, ahead);
    };
    for (int64_t t = 0; t < full; ++t) step.template operator()<false>(t, S::bytes);
    if (full < a.tiles) step.template operator()<true>(full, u.row_bytes - full * S::bytes);
    for (int r = 0; r < R && row + r < u.m; ++r)
        for (int b = 0; b < B; ++b)
            u.y[(first + b) * u.m + row + r] =
                Isa::total(sum[r][b]) - dot(zeros + r * padded_groups, a.group_sum + (first + b) * u.groups, u.groups);
}

template <int F, bool INT8, bool LANES>
void rows(const Uniform& u, const Activations& a, int64_t begin, int64_t end, float* scratch) {
    constexpr int R = Isa::rows, half = R > 1 ? R / 2 : 1;
    const int64_t padded = u.groups + 2 * Isa::L;
    float *scale = scratch, *zeros = scale + R * padded, *space = zeros + R * padded;
    for (int64_t row = begin; row < end; row += R) {
        for (int r = 0; r < R; ++r) {
            const int64_t at = row + r < u.m ? row + r : u.m - 1;
            float* s = scale + r * padded;
            widen(u.scale + at * u.scale_stride, s, u.scale_stride ? u.groups : 1);
            if (!u.scale_stride)
                for (int64_t g = 1; g < u.groups; ++g) s[g] = s[0];
            scaled_zeros(u, at, Shape<F, INT8>::centre, s, zeros + r * padded);
        }
        // Four rows of activations at a time have twice the accumulators, so half the rows of the weight.
        const int64_t fours = u.batch / Isa::batch * Isa::batch;
        if constexpr (Isa::batch > 1)
            for (int h = 0; h < R && row + h < u.m; h += half)
                for (int64_t b = 0; b < fours; b += Isa::batch)
                    block<F, INT8, half, Isa::batch, LANES>(u, a, row + h, b, b == 0, scale + h * padded,
                                                            zeros + h * padded, space);
        for (int64_t b = Isa::batch > 1 ? fours : 0; b < u.batch; ++b)
            block<F, INT8, R, 1, LANES>(u, a, row, b, b == 0 || b == fours, scale, zeros, space);
    }
}

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

void uniform_prepare(const Uniform& u, const Activations& a, int64_t row) {
    choose(u.format, u.int8, [&]<int F, bool I>() { prepare<F, I>(u, a, row); });
}

int64_t uniform_scratch(const Uniform& u, const Activations& a) {
    return 8 * (u.groups + 2 * Isa::L) + 16 * (a.tiles + 1) * Isa::L;
}

void uniform_rows(const Uniform& u, const Activations& a, int64_t begin, int64_t end, float* scratch) {
    choose(u.format, u.int8, [&]<int F, bool I>() {
        const bool lanes = u.groups > 1 && u.group % Shape<F, I>::tile != 0;
        if constexpr (F != kBase3)
            if (lanes) return rows<F, I, true>(u, a, begin, end, scratch);
        rows<F, I, false>(u, a, begin, end, scratch);
    });
}
