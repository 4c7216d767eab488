// AVX2 with FMA, F16C and BMI2: Haswell and later, Zen and later.
#include <immintrin.h>

#include <cstring>

#include "kernels.h"

namespace harness {
namespace {

struct Isa {
    static constexpr int L = 8;
    static constexpr int rows = 2, batch = 4;  // of a block, as registers allow
    using F = __m256;
    using I = __m256i;

    static F load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
    static F broadcast(const float* p) { return _mm256_broadcast_ss(p); }
    static F zero_float() { return _mm256_setzero_ps(); }
    static I zero() { return _mm256_setzero_si256(); }
    static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
    static F to_float(I v) { return _mm256_cvtepi32_ps(v); }
    static float total(F v) {
        __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        half = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
    }
    static F from_half(const uint16_t* p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static I indices(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const I*>(p)); }
    static F spread(const float* p, I index) { return _mm256_permutevar8x32_ps(_mm256_loadu_ps(p), index); }

    static I load_codes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const I*>(p)); }
    static I load_part(const uint8_t* p, int64_t bytes) {
        uint8_t part[32] = {};
        std::memcpy(part, p, static_cast<size_t>(bytes < 32 ? bytes : 32));
        return load_codes(part);
    }

    // 12 bytes to 32 codes, each in a byte.
    static I bytes_of_three(const uint8_t* p, int64_t bytes) {
        uint64_t low = 0, high = 0;
        if (bytes >= 12) {
            std::memcpy(&low, p, 8);
            std::memcpy(&high, p + 8, 4);
        } else {
            uint8_t part[16] = {};
            std::memcpy(part, p, static_cast<size_t>(bytes));
            std::memcpy(&low, part, 8);
            std::memcpy(&high, part + 8, 4);
        }
        constexpr uint64_t spread = 0x0707070707070707;
        return _mm256_setr_epi64x(static_cast<long long>(_pdep_u64(low, spread)),
                                  static_cast<long long>(_pdep_u64(low >> 24, spread)),
                                  static_cast<long long>(_pdep_u64(low >> 48 | high << 16, spread)),
                                  static_cast<long long>(_pdep_u64(high >> 8, spread)));
    }
    // 24 bytes to 8 words of eight codes.
    static I words_of_three(const uint8_t* p, int64_t bytes) {
        uint8_t part[32] = {};
        std::memcpy(part, p, static_cast<size_t>(bytes < 12 ? bytes : 12));
        if (bytes > 12) std::memcpy(part + 16, p + 12, static_cast<size_t>(bytes < 24 ? bytes - 12 : 12));
        const I place = _mm256_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1, 0, 1, 2, -1, 3, 4, 5,
                                         -1, 6, 7, 8, -1, 9, 10, 11, -1);
        return _mm256_shuffle_epi8(load_codes(part), place);
    }

    template <int Format>
    static void unpack(I w, I* q) {
        if constexpr (Format == kEight || Format == kThree) {
            q[0] = w;
        } else if constexpr (Format == kBase3) {
            // A digit is the number of 256ths that 3u carries: 3u/4 is two averages, its two high bits the digit.
            const I top = _mm256_set1_epi8(static_cast<char>(0xC0));
            for (int d = 0; d < 5; ++d) {
                const I v = _mm256_xor_si256(w, _mm256_set1_epi8(-1));  // averages round up: those of the complement, down
                q[d] = _mm256_andnot_si256(_mm256_avg_epu8(v, _mm256_avg_epu8(v, _mm256_set1_epi8(-1))), top);
                w = _mm256_add_epi8(w, _mm256_add_epi8(w, w));
            }
        } else {
            const I mask = _mm256_set1_epi8((1 << Format) - 1);
            for (int p = 0; p < 8 / Format; ++p) q[p] = _mm256_and_si256(_mm256_srli_epi16(w, p * Format), mask);
        }
    }
    template <int Format>
    static I dot(I sum, I codes, const int8_t* x) {
        const I ones = _mm256_set1_epi16(1), values = _mm256_loadu_si256(reinterpret_cast<const I*>(x));
        if constexpr (Format == kEight) {  // Pairs of products do not fit 16 bits.
            const I even = _mm256_madd_epi16(_mm256_and_si256(codes, _mm256_set1_epi16(255)),
                                             _mm256_srai_epi16(_mm256_slli_epi16(values, 8), 8));
            const I odd = _mm256_madd_epi16(_mm256_srli_epi16(codes, 8), _mm256_srai_epi16(values, 8));
            return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
        } else {
            return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, values), ones));
        }
    }

    // The centre is the highest bit of a code: flipped, the code is that of a signed number.
    template <int Format>
    static I prepare_levels(I w) {
        constexpr uint32_t flip = Format == 2 ? 0xAAAAAAAA : Format == 3 ? 0x00924924 : Format == 4 ? 0x88888888
                                                                                                  : 0x80808080;
        return _mm256_xor_si256(w, _mm256_set1_epi32(static_cast<int>(flip)));
    }
    template <int Format, int K>
    static F level(I w) {
        return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(w, 32 - Format * (K + 1)), 32 - Format));
    }
    template <int Byte>
    static F trit(I digits) {
        const I level = _mm256_sub_epi8(digits, _mm256_set1_epi8(0x40));
        return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(level, 24 - 8 * Byte), 30));
    }
};

#include "uniform.inl"

}  // namespace

const Table* avx2_table() {
    static const Table table{"avx2", tile_columns, lane_columns, uniform_prepare, uniform_scratch, uniform_rows};
    return &table;
}

}  // namespace harness
