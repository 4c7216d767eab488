// Products by table lookup: for each four activations the sums of all their sign patterns, 16 bytes; a nibble of the
// weight picks one, for 32 rows at a time with a byte shuffle (T-MAC; sparse ternary as in Sherry).
//
// Tables are rounded to 8 bits with one scale for each `block_columns`, whose sums fit 16 bits.

constexpr int kTileRows = 32;
constexpr float kOne = 1;

inline int64_t block_columns(const Lookup& w) {
    if (w.groups == 1) return 64;
    int64_t block = 64;
    while (w.group % block) block /= 2;  // groups are multiples of eight
    return block;
}

// Signs of four activations that each nibble stands for: a bit plane (set: +), or three of four with the first +.
struct Patterns {
    float sign[4][16];
};

inline Patterns patterns(bool ternary) {
    Patterns all{};
    for (int nibble = 0; nibble < 16; ++nibble) {
        const float kept[3] = {1, nibble & 2 ? -1.0f : 1.0f, nibble & 1 ? -1.0f : 1.0f};
        for (int i = 0, k = 0; i < 4; ++i) {
            if (!ternary) all.sign[i][nibble] = nibble >> i & 1 ? 1 : -1;
            else if (i != nibble >> 2) all.sign[i][nibble] = kept[k++];
        }
    }
    return all;
}

// Tables of one row of activations (padded): `table` 16 bytes for each four columns, `worth` and `sum` for each block.
void lookup_tables(const Lookup& w, int64_t n, const float* x, int8_t* table, float* worth, float* sum) {
    const int64_t block = block_columns(w);
    const Patterns signs = patterns(w.signs != nullptr);
    for (int64_t from = 0, i = 0; from < n; from += block, ++i) {
        const int64_t end = least(from + block, ceil_div(n, 8) * 8);
        float largest = 0, total = 0;
        for (int64_t j = from; j < end; j += 4) {
            float size = 0;
            for (int k = 0; k < 4; ++k) {
                size += __builtin_fabsf(x[j + k]);
                total += x[j + k];
            }
            largest = size > largest || size != size ? size : largest;
        }
        const bool finite = largest - largest == 0;
        const float inverse = largest > 0 && finite ? 127 / largest : 0, factor = inverse < 1e38f ? inverse : 0;
        worth[i] = finite ? largest / 127 : largest - largest;
        sum[i] = total;
        for (int64_t j = from; j < end; j += 4) {
            const float a[4] = {x[j] * factor, x[j + 1] * factor, x[j + 2] * factor, x[j + 3] * factor};
            for (int nibble = 0; nibble < 16; ++nibble) {
                float entry = 0;
                for (int k = 0; k < 4; ++k) entry += a[k] * signs.sign[k][nibble];
                table[4 * j + nibble] = static_cast<int8_t>(finite ? (entry + 12582912.0f) - 12582912.0f : 0.0f);
            }
        }
    }
}

#if defined(__AVX2__)

// Sums of looked up bytes, 16 bits wide: rows 0-7 and 16-23, rows 8-15 and 24-31.
struct Sums {
    __m256i low, high;
    void add(__m256i even, __m256i odd) {
        const __m256i ones = _mm256_set1_epi8(1);
        low = _mm256_add_epi16(low, _mm256_maddubs_epi16(ones, _mm256_unpacklo_epi8(even, odd)));
        high = _mm256_add_epi16(high, _mm256_maddubs_epi16(ones, _mm256_unpackhi_epi8(even, odd)));
    }
    __m256 floats(int eight) const {
        const __m256i from = eight % 2 ? high : low;
        const __m128i half = eight < 2 ? _mm256_castsi256_si128(from) : _mm256_extracti128_si256(from, 1);
        return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(half));
    }
};

template <int P, bool TERNARY>
void lookup_columns(const uint8_t* codes, const uint8_t* signs, const int8_t* table, int64_t begin, int64_t end,
                    Sums (&sums)[P]) {
    const __m256i mask = _mm256_set1_epi8(15), one = _mm256_set1_epi8(1);
    const auto line = [](const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); };
    const auto twice = [](const int8_t* p) {
        return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    };
    for (int64_t c = begin; c < end; ++c) {
        const __m256i even = twice(table + 32 * c), odd = twice(table + 32 * c + 16);
        for (int k = 0; k < P; ++k) {
            const uint8_t* at = codes + (c * P + k) * kTileRows;
            const __m256i byte = line(at);
            if (!TERNARY && k % 2 == 0) fetch_once(at + kAhead);
            __m256i first = _mm256_shuffle_epi8(even, _mm256_and_si256(byte, mask));
            __m256i second = _mm256_shuffle_epi8(odd, _mm256_and_si256(_mm256_srli_epi16(byte, 4), mask));
            if constexpr (TERNARY) {
                const __m256i bits = line(signs + c / 4 * kTileRows);
                const int at = static_cast<int>(2 * (c % 4));
                const auto negate = [&](__m256i v, int bit) {  // where that bit of the row's byte is set
                    const __m256i moved = _mm256_sll_epi16(bits, _mm_cvtsi32_si128(7 - bit));
                    return _mm256_sign_epi8(v, _mm256_or_si256(moved, one));
                };
                first = negate(first, at);
                second = negate(second, at + 1);
            }
            sums[k].add(first, second);
        }
    }
}

#elif defined(HARNESS_NEON)

// Sums of looked up bytes, 16 bits wide, eight rows in each.
struct Sums {
    int16x8_t rows[kTileRows / 8];
    Narrow::F floats(int part) const {
        const int16x8_t from = rows[part / 2];
        return Narrow::to_float(vmovl_s16(part % 2 ? vget_high_s16(from) : vget_low_s16(from)));
    }
};

template <int P, bool TERNARY>
void lookup_columns(const uint8_t* codes, const uint8_t* signs, const int8_t* table, int64_t begin, int64_t end,
                    Sums (&sums)[P]) {
    for (int64_t c = begin; c < end; ++c) {
        const int8x16_t even = vld1q_s8(table + 32 * c), odd = vld1q_s8(table + 32 * c + 16);
        for (int k = 0; k < P; ++k)
            for (int half = 0; half < 2; ++half) {
                const uint8x16_t byte = vld1q_u8(codes + (c * P + k) * kTileRows + 16 * half);
                int8x16_t first = vqtbl1q_s8(even, vandq_u8(byte, vdupq_n_u8(15)));
                int8x16_t second = vqtbl1q_s8(odd, vshrq_n_u8(byte, 4));
                if constexpr (TERNARY) {
                    const uint8x16_t bits = vld1q_u8(signs + c / 4 * kTileRows + 16 * half);
                    const auto negate = [&](int8x16_t v, int64_t bit) {  // where that bit of the row's byte is set
                        const uint8x16_t set = vtstq_u8(bits, vdupq_n_u8(static_cast<uint8_t>(1 << bit)));
                        return vbslq_s8(set, vnegq_s8(v), v);
                    };
                    first = negate(first, 2 * (c % 4));
                    second = negate(second, 2 * (c % 4) + 1);
                }
                int16x8_t* rows = sums[k].rows + 2 * half;
                rows[0] = vaddq_s16(rows[0], vaddl_s8(vget_low_s8(first), vget_low_s8(second)));
                rows[1] = vaddq_s16(rows[1], vaddl_high_s8(first, second));
            }
    }
}

#else

struct Sums {
    int rows[kTileRows];
    Narrow::F floats(int part) const {
        float values[Narrow::L];
        for (int l = 0; l < Narrow::L; ++l) values[l] = static_cast<float>(rows[part * Narrow::L + l]);
        return Narrow::load(values);
    }
};

template <int P, bool TERNARY>
void lookup_columns(const uint8_t* codes, const uint8_t* signs, const int8_t* table, int64_t begin, int64_t end,
                    Sums (&sums)[P]) {
    for (int64_t c = begin; c < end; ++c)
        for (int k = 0; k < P; ++k)
            for (int row = 0; row < kTileRows; ++row) {
                const int byte = codes[(c * P + k) * kTileRows + row];
                int first = table[32 * c + (byte & 15)], second = table[32 * c + 16 + (byte >> 4)];
                if (TERNARY) {
                    const int bits = signs[c / 4 * kTileRows + row] >> 2 * (c % 4);
                    first = bits & 1 ? -first : first;
                    second = bits & 2 ? -second : second;
                }
                sums[k].rows[row] += first + second;
            }
}

#endif

template <int P, bool TERNARY>
void lookup_tile(const Product& p, const Lookup& w, const int8_t* table, const float* worth, const float* sum,
                 int64_t tile, float* y) {
    using F = Narrow::F;
    constexpr int parts = kTileRows / Narrow::L;
    const int64_t columns = ceil_div(p.n, 8), block = block_columns(w), per_group = w.groups == 1 ? ceil_div(p.n, block) : w.group / block;
    const uint8_t* codes = w.codes + tile * columns * P * kTileRows;
    const uint8_t* signs = w.signs + (TERNARY ? tile * ceil_div(p.n, 32) * kTileRows : 0);
    F total[parts];
    for (int i = 0; i < parts; ++i) total[i] = Narrow::zero_float();
    for (int64_t g = 0, at = 0; g < w.groups; ++g) {
        F part[P][parts];
        for (int k = 0; k < P; ++k)
            for (int i = 0; i < parts; ++i) part[k][i] = Narrow::zero_float();
        float group_sum = 0;
        for (int64_t b = 0; b < per_group && at * block < p.n; ++b, ++at) {
            Sums sums[P] = {};
            lookup_columns<P, TERNARY>(codes, signs, table, at * block / 8, least((at + 1) * block / 8, columns), sums);
            for (int k = 0; k < P; ++k)
                for (int i = 0; i < parts; ++i)
                    part[k][i] = Narrow::fma(sums[k].floats(i), Narrow::broadcast(worth + at), part[k][i]);
            group_sum += sum[at];
        }
        const uint16_t* scale = w.scale + (tile * w.groups + g) * w.scales * kTileRows;
        for (int k = 0; k < P; ++k) {
            // A plane of zeros and ones is half the sum of its signs and of all activations.
            const float half = (TERNARY ? 1.0f : 0.5f) * static_cast<float>(w.scales == P ? 1 : 1 << k);
            const F halves = Narrow::broadcast(&half), all = Narrow::broadcast(&group_sum), one = Narrow::broadcast(&kOne);
            for (int i = 0; i < parts; ++i) {
                const F s = Narrow::mul(Narrow::from_half(scale + (w.scales == P ? k : 0) * kTileRows + i * Narrow::L), halves);
                const F value = TERNARY ? part[k][i] : Narrow::fma(all, one, part[k][i]);
                total[i] = Narrow::fma(value, s, total[i]);
            }
        }
        if (w.offset) {
            const uint16_t* offset = w.offset + (tile * w.groups + g) * kTileRows;
            const F all = Narrow::broadcast(&group_sum);
            for (int i = 0; i < parts; ++i)
                total[i] = Narrow::fma(Narrow::from_half(offset + i * Narrow::L), all, total[i]);
        }
    }
    for (int i = 0; i < parts; ++i) Narrow::store(y + i * Narrow::L, total[i]);
}

// Tiles of 32 rows, each by all rows of activations while it is in the cache.
void lookup_rows(const Product& p, const Lookup& w, const LookupTables& t, int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile)
        for (int64_t b = 0; b < p.batch; ++b) {
            float y[kTileRows];
            const int8_t* table = t.table + b * t.table_stride;
            const float *worth = t.worth + b * t.blocks, *sum = t.sum + b * t.blocks;
            if (w.signs) lookup_tile<1, true>(p, w, table, worth, sum, tile, y);
            else if (w.planes == 1) lookup_tile<1, false>(p, w, table, worth, sum, tile, y);
            else if (w.planes == 2) lookup_tile<2, false>(p, w, table, worth, sum, tile, y);
            else if (w.planes == 3) lookup_tile<3, false>(p, w, table, worth, sum, tile, y);
            else lookup_tile<4, false>(p, w, table, worth, sum, tile, y);
            const int64_t rows = least(kTileRows, p.m - tile * kTileRows);
            for (int64_t r = 0; r < rows; ++r) p.y[b * p.m + tile * kTileRows + r] = y[r];
        }
}
