// Vectors of AVX2. AVX-512 uses them too where 32 bytes are the natural width.

struct Avx2 {
    static constexpr int L = 8;
    using F = __m256;
    using I = __m256i;

    static F load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
    static F broadcast(const float* p) { return _mm256_broadcast_ss(p); }
    static F zero_float() { return _mm256_setzero_ps(); }
    static I zero() { return _mm256_setzero_si256(); }
    static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
    static F greater(F a, F b) { return _mm256_max_ps(a, b); }
    static F magnitude(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
    // Sums of neighbours: of those of `low`, then of those of `high`.
    static F pairs(F low, F high) {
        return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_hadd_ps(low, high)), 0b11'01'10'00));
    }
    static F to_float(I v) { return _mm256_cvtepi32_ps(v); }
    static float total(F v) {
        __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        half = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
    }
    static F from_half(const uint16_t* p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static F from_bfloat(const uint16_t* p) {
        const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
    }
    static I indices(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const I*>(p)); }
    static F spread(const float* p, I index) { return _mm256_permutevar8x32_ps(_mm256_loadu_ps(p), index); }
    // Eight integers of `Width` bits each from as many bytes.
    template <int Width>
    static F eight_integers(const uint8_t* p) {
        if constexpr (Width == 8)
            return to_float(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
        uint32_t word = 0;
        std::memcpy(&word, p, Width < 4 ? Width : 4);
        const I place = _mm256_setr_epi32(0, Width, 2 * Width, 3 * Width, 4 * Width, 5 * Width, 6 * Width, 7 * Width);
        const I shifted = _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(word)), place);
        return to_float(_mm256_and_si256(shifted, _mm256_set1_epi32((1 << Width) - 1)));
    }
    // Eight integers of `width` bits each, at most 4, of a word.
    static void split(uint32_t word, int width, float* out) {
        const I place = _mm256_mullo_epi32(_mm256_set1_epi32(width), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        const I shifted = _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(word)), place);
        store(out, to_float(_mm256_and_si256(shifted, _mm256_set1_epi32((1 << width) - 1))));
    }

    static I load_codes(const uint8_t* p) {
        I v = _mm256_loadu_si256(reinterpret_cast<const I*>(p));
        asm("" : "+x"(v));  // now in a register: else compilers read the same bytes again for each of their uses
        return v;
    }
    template <class X>
    static I load_integers(const X* p) {
        return _mm256_loadu_si256(reinterpret_cast<const I*>(p));
    }
    static I load_part(const uint8_t* p, int64_t bytes) {
        alignas(32) uint8_t part[32] = {};
        std::memcpy(part, p, static_cast<size_t>(bytes < 32 ? bytes : 32));
        return load_codes(part);
    }
    // 16 bytes twice, of which `bytes` may be read.
    static I load_twice(const uint8_t* p, int64_t bytes) {
        if (bytes >= 16) return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        return _mm256_permute2x128_si256(load_part(p, bytes), load_part(p, bytes), 0);
    }

    // 12 bytes to 32 codes, each twice its value in a byte. Pairs of codes are moved to bits 6 to 11 of a half word.
    static I bytes_of_three(const uint8_t* p, int64_t bytes) {
        const I place = _mm256_setr_epi8(0, 1, 0, 1, 1, 2, 2, -1, 3, 4, 3, 4, 4, 5, 5, -1, 6, 7, 6, 7, 7, 8, 8, -1, 9, 10,
                                         9, 10, 10, 11, 11, -1);
        const I factor = _mm256_set1_epi64x(0x0010'0004'0001'0040);
        const I pairs = _mm256_mullo_epi16(_mm256_shuffle_epi8(load_twice(p, bytes), place), factor);
        return _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(pairs, 5), _mm256_set1_epi16(0x000E)),
                               _mm256_and_si256(pairs, _mm256_set1_epi16(0x0E00)));
    }
    // 24 bytes to 8 words of eight codes.
    static I words_of_three(const uint8_t* p, int64_t bytes) {
        const I place = _mm256_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1, 0, 1, 2, -1, 3, 4, 5, -1,
                                         6, 7, 8, -1, 9, 10, 11, -1);
        if (bytes >= 28) {
            const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
            const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 12));
            return _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1), place);
        }
        alignas(32) uint8_t part[32] = {};
        std::memcpy(part, p, static_cast<size_t>(bytes < 12 ? bytes : 12));
        if (bytes > 12) std::memcpy(part + 16, p + 12, static_cast<size_t>(bytes < 24 ? bytes - 12 : 12));
        return _mm256_shuffle_epi8(load_codes(part), place);
    }

    // Digits of base 3 in the two high bits of each byte: 3u / 4 is two averages, its two high bits what 3u carries.
    static void digits(I w, I* q) {
        const I ones = _mm256_set1_epi8(-1), top = _mm256_set1_epi8(static_cast<char>(0xC0));
        for (int d = 0; d < 5; ++d) {
            const I v = _mm256_xor_si256(w, ones);  // averages round up: those of the complement, down
            q[d] = _mm256_andnot_si256(_mm256_avg_epu8(v, _mm256_avg_epu8(v, ones)), top);
            w = _mm256_add_epi8(w, _mm256_add_epi8(w, w));
        }
    }

    // Products with integers: codes are bytes in `fields` vectors, sums 16 bits wide until `finish`.
    template <int Format>
    struct Int {
        static constexpr bool wide = Format == kEight;  // pairs of products do not fit 16 bits
        using X = std::conditional_t<wide, int16_t, int8_t>;
        static constexpr int fields = wide ? 2 : Format == kBase3 ? 5 : Format == kThree ? 1 : 8 / Format;
        static constexpr int sums = Format == kTwo ? 2 : 1;
        static constexpr float unit = Format == kThree ? 0.5f : 1.0f;

        static void unpack(I w, I* q) {
            if constexpr (Format == kTwo) {  // the odd fields four times their value, which saves their shifts
                const I low = _mm256_set1_epi8(3), high = _mm256_set1_epi8(12), shifted = _mm256_srli_epi16(w, 4);
                q[0] = _mm256_and_si256(w, low);
                q[1] = _mm256_and_si256(w, high);
                q[2] = _mm256_and_si256(shifted, low);
                q[3] = _mm256_and_si256(shifted, high);
            } else if constexpr (Format == kFour) {
                q[0] = _mm256_and_si256(w, _mm256_set1_epi8(15));
                q[1] = _mm256_and_si256(_mm256_srli_epi16(w, 4), _mm256_set1_epi8(15));
            } else if constexpr (Format == kEight) {
                q[0] = _mm256_and_si256(w, _mm256_set1_epi16(255));
                q[1] = _mm256_srli_epi16(w, 8);
            } else if constexpr (Format == kBase3) {
                digits(w, q);
                for (int d = 0; d < 5; ++d) q[d] = _mm256_srli_epi16(q[d], 6);
            } else {
                q[0] = w;
            }
        }
        template <int P>
        static void add(I* sum, I codes, I x) {
            if constexpr (wide) sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(codes, x));
            else sum[P % sums] = _mm256_add_epi16(sum[P % sums], _mm256_maddubs_epi16(codes, x));
        }
        // Partial sums as one vector: of 32 bits where `wide`, else of 16.
        static I together(const I* sum) {
            if constexpr (sums == 1) return sum[0];
            else return _mm256_add_epi16(sum[0], _mm256_srai_epi16(sum[1], 2));
        }
        static I finish(const I* sum) {
            return wide ? sum[0] : _mm256_madd_epi16(together(sum), _mm256_set1_epi16(1));
        }
        // The sums of all lanes of each of four vectors. Lanes of 16 bits have room for one addition more.
        static void four_sums(const I* v, int32_t* out) {
            const auto pair = [](I a, I b) {
                const I low = _mm256_unpacklo_epi32(a, b), high = _mm256_unpackhi_epi32(a, b);
                if constexpr (wide) return _mm256_add_epi32(low, high);
                else return _mm256_madd_epi16(_mm256_add_epi16(low, high), _mm256_set1_epi16(1));
            };
            const I ab = pair(v[0], v[1]), cd = pair(v[2], v[3]);
            const I sum = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
            const __m128i all = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(out), all);
        }
    };

    // A level is 1 + code / 2**bits: the code becomes the high bits of a mantissa.
    template <int Format>
    static constexpr float unit = Format == kBase3 ? 4 : 1 << Format;
    template <int Format>
    static constexpr float centre = -unit<Format>;

    // `bits` bits from bit `at` of each word.
    template <int At, int Bits>
    static F mantissa(I w) {
        constexpr int shift = 23 - Bits - At;
        const I moved = shift >= 0 ? _mm256_slli_epi32(w, shift >= 0 ? shift : 0) : _mm256_srli_epi32(w, shift < 0 ? -shift : 0);
        const I mask = _mm256_set1_epi32(((1 << Bits) - 1) << (23 - Bits));
        return _mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(moved, mask), _mm256_set1_epi32(0x3F800000)));
    }
    template <int Format, int K>
    static F level(I w) {
        return mantissa<K * Format, Format>(w);
    }
    template <int Byte>
    static F trit(I digits) {
        return mantissa<8 * Byte + 6, 2>(digits);
    }
};
