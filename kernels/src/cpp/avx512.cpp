// AVX-512 with VBMI and VNNI: Ice Lake and later, Zen 4 and later.
#include <immintrin.h>

#include <cstring>
#include <type_traits>

#include "half.h"
#include "kernels.h"

namespace harness {
namespace {

#include "avx2.inl"

struct Isa {
    static constexpr int L = 16;
    // Rows of the weight in a block, as registers allow; with several rows of activations, fewer.
    template <int Format>
    static constexpr int rows = 4;
    static constexpr int float_rows = 4, batch = 4, batch_rows = 2;
    static constexpr bool unit_sums = false;  // sums are 32 bits wide from the start
    using F = __m512;
    using I = __m512i;

    static F load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
    static F broadcast(const float* p) { return _mm512_set1_ps(*p); }
    static F zero_float() { return _mm512_setzero_ps(); }
    static I zero() { return _mm512_setzero_si512(); }
    static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static F greater(F a, F b) { return _mm512_max_ps(a, b); }
    static F magnitude(F a) { return _mm512_abs_ps(a); }
    static F to_float(I v) { return _mm512_cvtepi32_ps(v); }
    static float total(F v) { return _mm512_reduce_add_ps(v); }
    static F from_half(const uint16_t* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static F from_bfloat(const uint16_t* p) {
        const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    }
    static I indices(const int32_t* p) { return _mm512_loadu_si512(p); }
    static F spread(const float* p, I index) { return _mm512_permutexvar_ps(index, _mm512_loadu_ps(p)); }
    static void split(uint32_t word, int width, float* out) { Avx2::split(word, width, out); }

    static I load_codes(const uint8_t* p) { return _mm512_loadu_si512(p); }
    static I load_integers(const int8_t* p) { return _mm512_loadu_si512(p); }
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
        const I words = _mm512_permutexvar_epi8(_mm512_load_si512(place), load_part(p, bytes < 24 ? bytes : 24));
        return _mm512_and_si512(_mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x15120f0c09060300), words),
                                _mm512_set1_epi8(7));
    }
    // 48 bytes to 16 words of eight codes.
    static I words_of_three(const uint8_t* p, int64_t bytes) {
        alignas(64) static const uint8_t place[64] = {
            0,  1,  2,  63, 3,  4,  5,  63, 6,  7,  8,  63, 9,  10, 11, 63, 12, 13, 14, 63, 15, 16,
            17, 63, 18, 19, 20, 63, 21, 22, 23, 63, 24, 25, 26, 63, 27, 28, 29, 63, 30, 31, 32, 63,
            33, 34, 35, 63, 36, 37, 38, 63, 39, 40, 41, 63, 42, 43, 44, 63, 45, 46, 47, 63};
        const I padded = _mm512_maskz_mov_epi8((1ull << 48) - 1, load_part(p, bytes));
        return _mm512_permutexvar_epi8(_mm512_load_si512(place), padded);
    }

    // Digits of base 3 in the two high bits of each byte: see Avx2.
    static void digits(I w, I* q) {
        const I ones = _mm512_set1_epi8(-1), top = _mm512_set1_epi8(static_cast<char>(0xC0));
        for (int d = 0; d < 5; ++d) {
            const I v = _mm512_xor_si512(w, ones);
            q[d] = _mm512_andnot_si512(_mm512_avg_epu8(v, _mm512_avg_epu8(v, ones)), top);
            w = _mm512_add_epi8(w, _mm512_add_epi8(w, w));
        }
    }

    template <int Format>
    struct Int {
        using X = int8_t;
        static constexpr int fields = Format == kBase3 ? 5 : Format == kThree ? 1 : 8 / Format;
        static constexpr int sums = 1;
        static constexpr float unit = Format == kBase3 ? 1.0f / 64 : 1.0f;

        static void unpack(I w, I* q) {
            if constexpr (Format == kEight || Format == kThree) {
                q[0] = w;
            } else if constexpr (Format == kBase3) {
                digits(w, q);
            } else {
                const I mask = _mm512_set1_epi8((1 << Format) - 1);
                q[0] = _mm512_and_si512(w, mask);
                for (int p = 1; p < fields; ++p) q[p] = _mm512_and_si512(_mm512_srli_epi16(w, p * Format), mask);
            }
        }
        template <int P>
        static void add(I* sum, I codes, I x) {
            sum[0] = _mm512_dpbusd_epi32(sum[0], codes, x);
        }
        static I finish(const I* sum) { return sum[0]; }
    };

    // A level is the code minus the centre, from a table of 16: a shuffle looks at the low four bits only.
    template <int Format>
    static constexpr float unit = 1;
    template <int Format>
    static constexpr float centre = Format == kBase3 ? 1 : 1 << (Format - 1);

    template <int Format, int K>
    static F level(I w) {
        if constexpr (Format == kEight) {
            const I flipped = _mm512_xor_si512(w, _mm512_set1_epi8(static_cast<char>(0x80)));
            return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(flipped, 24 - 8 * K), 24));
        } else {
            constexpr int top = 1 << Format, half = top / 2;
            const F table = _mm512_setr_ps(
                0 - half, 1 - half, 2 % top - half, 3 % top - half, 4 % top - half, 5 % top - half, 6 % top - half,
                7 % top - half, 8 % top - half, 9 % top - half, 10 % top - half, 11 % top - half, 12 % top - half,
                13 % top - half, 14 % top - half, 15 % top - half);
            return _mm512_permutexvar_ps(_mm512_srli_epi32(w, K * Format), table);
        }
    }
    template <int Byte>
    static F trit(I digits) {
        const F table = _mm512_setr_ps(-1, 0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2);
        return _mm512_permutexvar_ps(_mm512_srli_epi32(digits, 8 * Byte + 6), table);
    }
};

using Narrow = Avx2;  // where eight or four floats are the natural width

#include "activations.inl"
#include "uniform.inl"
#include "rows.inl"
#include "lookup.inl"
#include "table.inl"

}  // namespace

const Table* avx512_table() {
    static const Table table = filled("avx512");
    return &table;
}

}  // namespace harness
