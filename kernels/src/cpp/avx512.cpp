// AVX-512 with VBMI and VNNI: Ice Lake and later, Zen 4 and later.
#include <immintrin.h>

#include "kernels.h"

namespace harness {
namespace {

struct Isa {
    static constexpr int L = 16;
    static constexpr int rows = 4, batch = 4;  // of a block, as registers allow
    using F = __m512;
    using I = __m512i;

    static F load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
    static F broadcast(const float* p) { return _mm512_set1_ps(*p); }
    static F zero_float() { return _mm512_setzero_ps(); }
    static I zero() { return _mm512_setzero_si512(); }
    static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static F to_float(I v) { return _mm512_cvtepi32_ps(v); }
    static float total(F v) { return _mm512_reduce_add_ps(v); }
    static F from_half(const uint16_t* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static I indices(const int32_t* p) { return _mm512_loadu_si512(p); }
    static F spread(const float* p, I index) { return _mm512_permutexvar_ps(index, _mm512_loadu_ps(p)); }

    static I load_codes(const uint8_t* p) { return _mm512_loadu_si512(p); }
    static I load_part(const uint8_t* p, int64_t bytes) {
        const __mmask64 mask = bytes >= 64 ? ~0ull : (1ull << bytes) - 1;
        return _mm512_maskz_loadu_epi8(mask, p);
    }

    // 24 bytes to 64 codes, each in a byte.
    static I bytes_of_three(const uint8_t* p, int64_t bytes) {
        alignas(64) static const uint8_t place[64] = {
            0,  1,  2,  63, 63, 63, 63, 63, 3,  4,  5,  63, 63, 63, 63, 63, 6,  7,  8,  63, 63, 63,
            63, 63, 9,  10, 11, 63, 63, 63, 63, 63, 12, 13, 14, 63, 63, 63, 63, 63, 15, 16, 17, 63,
            63, 63, 63, 63, 18, 19, 20, 63, 63, 63, 63, 63, 21, 22, 23, 63, 63, 63, 63, 63};
        const I words = _mm512_permutexvar_epi8(_mm512_load_si512(place), load_part(p, bytes));
        return _mm512_and_si512(_mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x15120f0c09060300), words),
                                _mm512_set1_epi8(7));
    }
    // 48 bytes to 16 words of eight codes.
    static I words_of_three(const uint8_t* p, int64_t bytes) {
        alignas(64) static const uint8_t place[64] = {
            0,  1,  2,  63, 3,  4,  5,  63, 6,  7,  8,  63, 9,  10, 11, 63, 12, 13, 14, 63, 15, 16,
            17, 63, 18, 19, 20, 63, 21, 22, 23, 63, 24, 25, 26, 63, 27, 28, 29, 63, 30, 31, 32, 63,
            33, 34, 35, 63, 36, 37, 38, 63, 39, 40, 41, 63, 42, 43, 44, 63, 45, 46, 47, 63};
        return _mm512_permutexvar_epi8(_mm512_load_si512(place), load_part(p, bytes));
    }

    template <int Format>
    static void unpack(I w, I* q) {
        if constexpr (Format == kEight || Format == kThree) {
            q[0] = w;
        } else if constexpr (Format == kBase3) {
            // A digit is the number of 256ths that 3u carries: 3u/4 is two averages, its two high bits the digit.
            const I top = _mm512_set1_epi8(static_cast<char>(0xC0));
            for (int d = 0; d < 5; ++d) {
                const I v = _mm512_xor_si512(w, _mm512_set1_epi8(-1));  // averages round up: those of the complement, down
                q[d] = _mm512_andnot_si512(_mm512_avg_epu8(v, _mm512_avg_epu8(v, _mm512_set1_epi8(-1))), top);
                w = _mm512_add_epi8(w, _mm512_add_epi8(w, w));
            }
        } else {
            const I mask = _mm512_set1_epi8((1 << Format) - 1);
            q[0] = _mm512_and_si512(w, mask);
            for (int p = 1; p < 8 / Format; ++p) q[p] = _mm512_and_si512(_mm512_srli_epi16(w, p * Format), mask);
        }
    }
    template <int Format>
    static I dot(I sum, I codes, const int8_t* x) {
        return _mm512_dpbusd_epi32(sum, codes, _mm512_loadu_si512(x));
    }

    template <int Format>
    static I prepare_levels(I w) {
        return Format == kEight ? _mm512_xor_si512(w, _mm512_set1_epi8(static_cast<char>(0x80))) : w;
    }
    // Code K of each word minus the centre. Up to four bits a shuffle converts: it looks at the low four bits only.
    template <int Format, int K>
    static F level(I w) {
        if constexpr (Format == kEight) {
            return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(w, 24 - 8 * K), 24));
        } else {
            constexpr int bits = Format;
            constexpr int top = 1 << bits, half = top / 2;
            const F table = _mm512_setr_ps(
                0 - half, 1 - half, 2 % top - half, 3 % top - half, 4 % top - half, 5 % top - half, 6 % top - half,
                7 % top - half, 8 % top - half, 9 % top - half, 10 % top - half, 11 % top - half, 12 % top - half,
                13 % top - half, 14 % top - half, 15 % top - half);
            return _mm512_permutexvar_ps(_mm512_srli_epi32(w, K * bits), table);
        }
    }
    template <int Byte>
    static F trit(I digits) {
        const F table = _mm512_setr_ps(-1, 0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2);
        return _mm512_permutexvar_ps(_mm512_srli_epi32(digits, 8 * Byte + 6), table);
    }
};

#include "uniform.inl"

}  // namespace

const Table* avx512_table() {
    static const Table table{"avx512", tile_columns, lane_columns, uniform_prepare, uniform_scratch, uniform_rows};
    return &table;
}

}  // namespace harness
