// AVX-512 in terms of AVX2, for tests on machines without it: included before everything else of avx512.cpp.
// SIMDe has nearly all of it; what its release of 2021 lacks is made of halves here.
#pragma once

#include <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include <cstring>

namespace harness::emulate {

using I = simde__m512i;
using F = simde__m512;

template <class Half>
struct Halves { Half low, high; };

template <class To, class From>
To bits(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// An operation on each half.
template <class Half, class To, class Function>
To each_half(I v, Function f) {
    const auto halves = bits<Halves<__m256i>>(v);
    return bits<To>(Halves<Half>{f(halves.low), f(halves.high)});
}

inline F cvtepi32_ps(I v) { return each_half<__m256, F>(v, [](__m256i h) { return _mm256_cvtepi32_ps(h); }); }
inline I srai_epi32(I v, int by) { return each_half<__m256i, I>(v, [=](__m256i h) { return _mm256_srai_epi32(h, by); }); }
inline I cvtepu16_epi32(__m256i v) {
    return bits<I>(Halves<__m256i>{_mm256_cvtepu16_epi32(_mm256_castsi256_si128(v)),
                                   _mm256_cvtepu16_epi32(_mm256_extracti128_si256(v, 1))});
}
inline F cvtph_ps(__m256i v) {
    return bits<F>(Halves<__m256>{_mm256_cvtph_ps(_mm256_castsi256_si128(v)),
                                  _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1))});
}
inline float reduce_add_ps(F v) {
    float parts[16], sum = 0;
    std::memcpy(parts, &v, sizeof parts);
    for (const float part : parts) sum += part;
    return sum;
}
inline I maskz_loadu_epi8(unsigned long long mask, const void* from) {
    unsigned char bytes[64] = {};
    for (int i = 0; i < 64; ++i)
        if (mask >> i & 1) bytes[i] = static_cast<const unsigned char*>(from)[i];
    return bits<I>(bytes);
}

}  // namespace harness::emulate

#define _mm512_cvtepi32_ps harness::emulate::cvtepi32_ps
#define _mm512_srai_epi32 harness::emulate::srai_epi32
#define _mm512_cvtepu16_epi32 harness::emulate::cvtepu16_epi32
#define _mm512_cvtph_ps harness::emulate::cvtph_ps
#define _mm512_reduce_add_ps harness::emulate::reduce_add_ps
#define _mm512_maskz_loadu_epi8 harness::emulate::maskz_loadu_epi8
