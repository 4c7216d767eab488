// Plain C++, for any machine: vectors of four that the compiler may turn into whatever the baseline has.
#include <cstring>

#include "half.h"
#include "kernels.h"

namespace harness {
namespace {

struct Isa {
    static constexpr int L = 4;
    template <int Format>
    static constexpr int rows = 1;
    static constexpr int float_rows = 1, batch = 1, batch_rows = 1;
    static constexpr bool unit_sums = false;  // sums are 32 bits wide from the start
    struct F { float v[4]; };
    struct I { int32_t v[4]; };

    static F load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
    static void store(float* p, F a) { std::memcpy(p, a.v, 16); }
    static F broadcast(const float* p) { return {{*p, *p, *p, *p}}; }
    static F zero_float() { return {}; }
    static I zero() { return {}; }
    static F mul(F a, F b) {
        for (int i = 0; i < 4; ++i) a.v[i] *= b.v[i];
        return a;
    }
    static F fma(F a, F b, F c) {
        for (int i = 0; i < 4; ++i) c.v[i] += a.v[i] * b.v[i];
        return c;
    }
    static F greater(F a, F b) {
        for (int i = 0; i < 4; ++i) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
        return a;
    }
    static F magnitude(F a) {
        for (int i = 0; i < 4; ++i) a.v[i] = __builtin_fabsf(a.v[i]);
        return a;
    }
    static F to_float(I a) {
        return {{static_cast<float>(a.v[0]), static_cast<float>(a.v[1]), static_cast<float>(a.v[2]),
                 static_cast<float>(a.v[3])}};
    }
    static float total(F a) { return (a.v[0] + a.v[1]) + (a.v[2] + a.v[3]); }
    static F from_half(const uint16_t* p) {
        return {{half_to_float(p[0]), half_to_float(p[1]), half_to_float(p[2]), half_to_float(p[3])}};
    }
    static F from_bfloat(const uint16_t* p) {
        return {{bfloat_to_float(p[0]), bfloat_to_float(p[1]), bfloat_to_float(p[2]), bfloat_to_float(p[3])}};
    }
    static I indices(const int32_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
    static F spread(const float* p, I index) { return {{p[index.v[0]], p[index.v[1]], p[index.v[2]], p[index.v[3]]}}; }
    static void split(uint32_t word, int width, float* out) {
        for (int k = 0; k < 8; ++k) out[k] = static_cast<float>(word >> k * width & ((1u << width) - 1));
    }

    static I load_codes(const uint8_t* p) {
        I a;
        std::memcpy(a.v, p, 16);
        return a;
    }
    static I load_integers(const int8_t* p) { return load_codes(reinterpret_cast<const uint8_t*>(p)); }
    static I load_part(const uint8_t* p, int64_t bytes) {
        I a{};
        std::memcpy(a.v, p, static_cast<size_t>(bytes < 16 ? bytes : 16));
        return a;
    }
    static int byte(I a, int i) { return static_cast<int>(static_cast<uint32_t>(a.v[i / 4]) >> i % 4 * 8 & 255); }
    static void set(I& a, int i, int value) { a.v[i / 4] |= static_cast<int>(static_cast<uint32_t>(value) << i % 4 * 8); }

    static I bytes_of_three(const uint8_t* p, int64_t bytes) {
        I a{};
        for (int i = 0; i < 16; ++i) {
            const int at = 3 * i / 8, low = at < bytes ? p[at] : 0, high = at + 1 < bytes ? p[at + 1] : 0;
            set(a, i, (low | high << 8) >> 3 * i % 8 & 7);
        }
        return a;
    }
    static I words_of_three(const uint8_t* p, int64_t bytes) {
        I a{};
        for (int i = 0; i < 12 && i < bytes; ++i) set(a, i / 3 * 4 + i % 3, p[i]);
        return a;
    }
    static void digits(I w, I* q) {
        for (int d = 0; d < 5; ++d) {
            q[d] = {};
            I rest{};
            for (int i = 0; i < 16; ++i) {
                const int tripled = 3 * byte(w, i);
                set(q[d], i, tripled >> 8 << 6);
                set(rest, i, tripled & 255);
            }
            w = rest;
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
                constexpr int mask = ((1 << Format) - 1) * 0x01010101;
                for (int p = 0; p < fields; ++p)
                    for (int i = 0; i < 4; ++i) q[p].v[i] = w.v[i] >> p * Format & mask;
            }
        }
        template <int P>
        static void add(I* sum, I codes, I x) {
            for (int i = 0; i < 16; ++i) sum->v[i / 4] += byte(codes, i) * static_cast<int8_t>(byte(x, i));
        }
        static I finish(const I* sum) { return sum[0]; }
    };

    template <int Format>
    static constexpr float unit = 1;
    template <int Format>
    static constexpr float centre = Format == kBase3 ? 1 : 1 << (Format - 1);

    template <int Format, int K>
    static F level(I w) {
        F f;
        for (int i = 0; i < 4; ++i) {
            const int code = static_cast<int>(static_cast<uint32_t>(w.v[i]) >> (K * Format) & ((1u << Format) - 1));
            f.v[i] = static_cast<float>(code - (1 << (Format - 1)));
        }
        return f;
    }
    template <int Byte>
    static F trit(I digits) {
        F f;
        for (int i = 0; i < 4; ++i) f.v[i] = static_cast<float>((byte(digits, 4 * i + Byte) >> 6) - 1);
        return f;
    }
};

using Narrow = Isa;  // where eight or four floats are the natural width

#include "activations.inl"
#include "uniform.inl"
#include "rows.inl"
#include "lookup.inl"
#include "table.inl"

}  // namespace

const Table* portable_table() {
    static const Table table = filled("portable");
    return &table;
}

}  // namespace harness
