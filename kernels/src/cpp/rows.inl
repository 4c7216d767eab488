// Products with weights stored row by row (or a few rows at a time) whose values are floating numbers: dense in half
// precision, sparse, and from a codebook. Activations are padded with 16 zeros at least, so whole vectors can be read.

template <int Type>
Narrow::F values_at(const void* p, int64_t at) {
    if constexpr (Type == kF32) return Narrow::load(static_cast<const float*>(p) + at);
    else if constexpr (Type == kF16) return Narrow::from_half(static_cast<const uint16_t*>(p) + at);
    else return Narrow::from_bfloat(static_cast<const uint16_t*>(p) + at);
}

// The last values of a row, without reading beyond them.
template <int Type>
Narrow::F last_values(const void* p, int64_t at, int64_t count) {
    constexpr size_t size = Type == kF32 ? 4 : 2;
    alignas(32) char part[4 * Narrow::L] = {};
    __builtin_memcpy(part, static_cast<const char*>(p) + at * size, static_cast<size_t>(count) * size);
    return values_at<Type>(part, 0);
}

template <int Type, int R, int B>
void dense_block(const Product& p, const Dense& d, int64_t row, int64_t first) {
    constexpr int L = Narrow::L;
    Narrow::F sum[R][B];
    const void* w[R];
    for (int r = 0; r < R; ++r) {
        const int64_t at = least(row + r, p.m - 1) * p.n * (Type == kF32 ? 4 : 2);
        w[r] = static_cast<const char*>(d.weight) + at;
        for (int b = 0; b < B; ++b) sum[r][b] = Narrow::zero_float();
    }
    const auto step = [&](int64_t j, auto read) __attribute__((always_inline)) {
        Narrow::F x[B];
        for (int b = 0; b < B; ++b) x[b] = Narrow::load(p.x + (first + b) * p.x_stride + j);
        for (int r = 0; r < R; ++r) {
            const auto value = read(w[r]);
            for (int b = 0; b < B; ++b) sum[r][b] = Narrow::fma(value, x[b], sum[r][b]);
        }
    };
    int64_t j = 0;
#if defined(__AVX2__)
    // A word holds two values of bfloat16; each is a float once the other is shifted out or masked. Activations are
    // sorted likewise, for all rows at once.
    if constexpr (Type == kBF16 && B == 1) {
        __m256 odd[R];
        for (auto& one : odd) one = _mm256_setzero_ps();
        const auto sorted = [](__m256 pairs) {
            return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(pairs), 0b11'01'10'00));
        };
        const __m256i high = _mm256_set1_epi32(static_cast<int>(0xFFFF0000));
        const float* x = p.x + first * p.x_stride;
        const int64_t columns = kAhead / 2, to_next_rows = kAhead + (R - 1) * p.n * 2;
        for (; j + 16 <= p.n; j += 16) {
            const int64_t ahead = j + columns < p.n ? kAhead : to_next_rows;
            const __m256 low = Avx2::load(x + j), rest = Avx2::load(x + j + 8);
            const __m256 x_even = sorted(_mm256_shuffle_ps(low, rest, 0b10'00'10'00));
            const __m256 x_odd = sorted(_mm256_shuffle_ps(low, rest, 0b11'01'11'01));
            each<R>([&](auto r) HARNESS_INLINE {
                const auto* at = static_cast<const uint16_t*>(w[r.value]) + j;
                if (j % 32 == 0) fetch_once(reinterpret_cast<const char*>(at) + ahead);
                const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
                const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
                sum[r.value][0] = Avx2::fma(even, x_even, sum[r.value][0]);
                odd[r.value] = Avx2::fma(_mm256_castsi256_ps(_mm256_and_si256(words, high)), x_odd, odd[r.value]);
            });
        }
        for (int r = 0; r < R; ++r) sum[r][0] = _mm256_add_ps(sum[r][0], odd[r]);
    }
#endif
    for (; j + L <= p.n; j += L) step(j, [&](const void* from) { return values_at<Type>(from, j); });
    if (j < p.n) step(j, [&](const void* from) { return last_values<Type>(from, j, p.n - j); });
    for (int r = 0; r < R && row + r < p.m; ++r)
        for (int b = 0; b < B; ++b) p.y[(first + b) * p.m + row + r] = Narrow::total(sum[r][b]);
}

void dense_rows(const Product& p, const Dense& d, int64_t begin, int64_t end) {
    const auto run = [&]<int Type>() {
        for (int64_t row = begin; row < end; row += 4) {
            int64_t b = 0;
            for (; b + 4 <= p.batch; b += 4)
                for (int half = 0; half < 4 && row + half < p.m; half += 2) dense_block<Type, 2, 4>(p, d, row + half, b);
            for (; b < p.batch; ++b) dense_block<Type, 4, 1>(p, d, row, b);
        }
    };
    if (d.type == kF16) return run.template operator()<kF16>();
    if (d.type == kBF16) return run.template operator()<kBF16>();
    run.template operator()<kF32>();
}

#if defined(__AVX2__)
// Half-precision values moved to their places among eight columns, zeros between them. `places` names for each byte of
// the index or of the mask the bytes that go to each column: a byte shuffle is much quicker than one of floats.
inline __m256 placed(__m128i values, const uint8_t* places, int byte) {
    const __m128i order = _mm_load_si128(reinterpret_cast<const __m128i*>(places) + byte);
    return _mm256_cvtph_ps(_mm_shuffle_epi8(values, order));
}
#endif

template <int B>
void two_of_four_row(const Product& p, const TwoOfFour& w, int64_t row, int64_t first) {
    const uint16_t* values = w.values + row * w.kept;
    const uint8_t* index = w.index + row * ceil_div(w.kept, 4);
    float total[B] = {};
    int64_t i = 0;
#if defined(__AVX2__)
    // Several sums, so that an addition does not wait for the one before it.
    constexpr int kSums = B == 1 ? 4 : 1;
    __m256 sum[kSums][B];
    for (auto& one : sum)
        for (int b = 0; b < B; ++b) one[b] = _mm256_setzero_ps();
    const auto add = [&](int64_t at, __m256* one) __attribute__((always_inline)) {
        const __m128i four = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(values + at));
        const __m256 value = placed(four, w.places, index[at / 4]);
        for (int b = 0; b < B; ++b)
            one[b] = Avx2::fma(value, Avx2::load(p.x + (first + b) * p.x_stride + 2 * at), one[b]);
    };
    for (; i + 4 * kSums <= w.kept; i += 4 * kSums) {
        fetch_once(reinterpret_cast<const char*>(values + i) + kAhead);  // of half a line, so once for each of two
        each<kSums>([&](auto k) HARNESS_INLINE { add(i + 4 * k.value, sum[k.value]); });
    }
    for (; i + 4 <= w.kept; i += 4) add(i, sum[0]);
    for (int b = 0; b < B; ++b)
        for (int k = 0; k < kSums; ++k) total[b] += Avx2::total(sum[k][b]);
#endif
    for (; i < w.kept; ++i) {
        const int64_t column = i / 2 * 4 + (index[i / 4] >> 2 * (i % 4) & 3);
        for (int b = 0; b < B; ++b)
            total[b] += half_to_float(values[i]) * p.x[(first + b) * p.x_stride + column];
    }
    for (int b = 0; b < B; ++b) p.y[(first + b) * p.m + row] = total[b];
}

void two_of_four_rows(const Product& p, const TwoOfFour& w, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
        int64_t b = 0;
        for (; b + 4 <= p.batch; b += 4) two_of_four_row<4>(p, w, row, b);
        for (; b < p.batch; ++b) two_of_four_row<1>(p, w, row, b);
    }
}

// The kept values of a row, put where they belong: eight columns for each byte of the mask.
void bitmap_rows(const Product& p, const Bitmap& w, int64_t begin, int64_t end) {
    const int64_t bytes = ceil_div(p.n, 8);
    for (int64_t row = begin; row < end; ++row) {
        const uint8_t* mask = w.mask + row * bytes;
        for (int64_t b = 0; b < p.batch; ++b) {
            const float* x = p.x + b * p.x_stride;
            int64_t at = w.first[row];
#if defined(__AVX2__)
            __m256 sum[4];
            for (auto& one : sum) one = _mm256_setzero_ps();
            const auto add = [&](const uint16_t* from, int64_t c, __m256& one) __attribute__((always_inline)) {
                const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
                one = Avx2::fma(placed(values, w.places, mask[c]), Avx2::load(x + 8 * c), one);
                at += __builtin_popcount(mask[c]);
            };
            int64_t c = 0;
            for (; c + 4 <= bytes && at + 32 <= w.count; c += 4) {
                fetch_once(reinterpret_cast<const char*>(w.values + at) + kAhead);
                each<4>([&](auto k) HARNESS_INLINE { add(w.values + at, c + k.value, sum[k.value]); });
            }
            for (; c < bytes; ++c) {
                alignas(16) uint16_t last[8] = {};
                const bool near = at + 8 > w.count;
                if (near && at < w.count)  // of no values at all there is not even an address
                    __builtin_memcpy(last, w.values + at, static_cast<size_t>(w.count - at) * sizeof *last);
                add(near ? last : w.values + at, c, sum[0]);
            }
            p.y[b * p.m + row] = Avx2::total(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
#else
            float sum = 0;
            for (int64_t c = 0; c < bytes; ++c)
                for (unsigned keeps = mask[c]; keeps; keeps &= keeps - 1)
                    sum += half_to_float(w.values[at++]) * x[8 * c + __builtin_ctz(keeps)];
            p.y[b * p.m + row] = sum;
#endif
        }
    }
}

void sparse_rows(const Product& p, const SparseRows& w, int64_t begin, int64_t end) {
    constexpr int kChunk = 256;
    float values[kChunk];
    int32_t columns[kChunk];
    for (int64_t row = begin; row < end; ++row) {
        for (int64_t b = 0; b < p.batch; ++b) p.y[b * p.m + row] = 0;
        for (int64_t k = w.rows[row]; k < w.rows[row + 1]; k += kChunk) {
            const int count = static_cast<int>(least(kChunk, w.rows[row + 1] - k));
            widen(w.values + k, values, count);
            for (int i = 0; i < count; ++i)
                columns[i] = w.wide ? static_cast<const int32_t*>(w.columns)[k + i]
                                    : static_cast<const uint16_t*>(w.columns)[k + i];
            for (int64_t b = 0; b < p.batch; ++b) {
                const float* x = p.x + b * p.x_stride;
                float sum[4] = {};
                int i = 0;
                for (; i + 4 <= count; i += 4)
                    for (int l = 0; l < 4; ++l) sum[l] += values[i + l] * x[columns[i + l]];
                for (; i < count; ++i) sum[0] += values[i] * x[columns[i]];
                p.y[b * p.m + row] += (sum[0] + sum[1]) + (sum[2] + sum[3]);
            }
        }
    }
}

// Indices of `count` columns from `from`, a multiple of eight.
inline void indices_of(const Codebook& w, int64_t row, int64_t from, int count, int32_t* out) {
    const int low = w.bits < 8 ? w.bits : 8, high = w.bits - low;
    const auto read = [](const uint8_t* string, int64_t bit, int width) {
        const uint8_t* p = string + bit / 8;
        const int word = bit % 8 + width > 8 ? p[0] | p[1] << 8 : p[0];
        return word >> bit % 8 & ((1 << width) - 1);
    };
    const uint8_t *codes = w.codes + row * w.row_bytes, *above = w.high ? w.high + row * w.high_bytes : nullptr;
    if (low == 8)
        for (int i = 0; i < count; ++i) out[i] = codes[from + i];
    else
        for (int i = 0; i < count; ++i) out[i] = read(codes, (from + i) * low, low);
    if (high)
        for (int i = 0; i < count; ++i) out[i] |= read(above, (from + i) * high, high) << 8;
}

// `V` vectors of rows at a time: each index adds a codeword times an activation.
template <int V>
void codebook_vectors(const Product& p, const Codebook& w, int64_t begin, int64_t end) {
    constexpr int kChunk = 512, L = Narrow::L;
    int32_t index[kChunk];
    for (int64_t row = begin; row < end; ++row)
        for (int64_t from = 0; from < p.n; from += kChunk) {
            const int count = static_cast<int>(least(kChunk, p.n - from));
            indices_of(w, row, from, count, index);
            for (int64_t b = 0; b < p.batch; ++b) {
                const float* x = p.x + b * p.x_stride + from;
                Narrow::F sum[4][V];
                for (int l = 0; l < 4; ++l)
                    for (int v = 0; v < V; ++v) sum[l][v] = Narrow::zero_float();
                const auto add = [&](int i, int l) __attribute__((always_inline)) {
                    const float* word = w.book + static_cast<int64_t>(index[i]) * (V * L);
                    for (int v = 0; v < V; ++v)
                        sum[l][v] = Narrow::fma(Narrow::broadcast(x + i), Narrow::load(word + v * L), sum[l][v]);
                };
                int i = 0;
                for (; i + 4 <= count; i += 4)
                    for (int l = 0; l < 4; ++l) add(i + l, l);
                for (; i < count; ++i) add(i, 0);
                for (int v = 0; v < V; ++v) {
                    float part[4][L];
                    for (int l = 0; l < 4; ++l) Narrow::store(part[l], sum[l][v]);
                    for (int k = 0; k < L; ++k) {
                        const int64_t at = row * w.vector + v * L + k;
                        if (at >= p.m) continue;
                        float& y = p.y[b * p.m + at];
                        y = (from ? y : 0) + ((part[0][k] + part[1][k]) + (part[2][k] + part[3][k]));
                    }
                }
            }
        }
}

void codebook_any(const Product& p, const Codebook& w, int64_t begin, int64_t end) {
    constexpr int kChunk = 512;
    int32_t index[kChunk];
    for (int64_t row = begin; row < end; ++row)
        for (int64_t from = 0; from < p.n; from += kChunk) {
            const int count = static_cast<int>(least(kChunk, p.n - from));
            indices_of(w, row, from, count, index);
            for (int64_t b = 0; b < p.batch; ++b)
                for (int t = 0; t < w.vector && row * w.vector + t < p.m; ++t) {
                    const float* x = p.x + b * p.x_stride + from;
                    float sum = 0;
                    for (int i = 0; i < count; ++i) sum += x[i] * w.book[static_cast<int64_t>(index[i]) * w.vector + t];
                    float& y = p.y[b * p.m + row * w.vector + t];
                    y = (from ? y : 0) + sum;
                }
        }
}

void codebook_rows(const Product& p, const Codebook& w, int64_t begin, int64_t end) {
    if (w.vector == Narrow::L) return codebook_vectors<1>(p, w, begin, end);
    if (w.vector == 2 * Narrow::L) return codebook_vectors<2>(p, w, begin, end);
    codebook_any(p, w, begin, end);
}
