// Plain C++, for any machine: vectors of four that the compiler may turn into whatever the baseline has.
#include "half.h"
#include "kernels.h"

namespace harness {
namespace {

struct Isa {
    static constexpr int L = 4;
    static constexpr int rows = 1, batch = 1;  // of a block, as registers allow
    struct F { float v[4]; };
    struct I { uint8_t v[16]; };

    static F load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
    static void store(float* p, F a) {
        for (int i = 0; i < 4; ++i) p[i] = a.v[i];
    }
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
    static int32_t word(I a, int i) {
        return static_cast<int32_t>(a.v[4 * i] | a.v[4 * i + 1] << 8 | a.v[4 * i + 2] << 16 |
                                    static_cast<uint32_t>(a.v[4 * i + 3]) << 24);
    }
    static F to_float(I a) {
        F f;
        for (int i = 0; i < 4; ++i) f.v[i] = static_cast<float>(word(a, i));
        return f;
    }
    static float total(F a) { return (a.v[0] + a.v[1]) + (a.v[2] + a.v[3]); }
    static F from_half(const uint16_t* p) {
        return {{half_to_float(p[0]), half_to_float(p[1]), half_to_float(p[2]), half_to_float(p[3])}};
    }
    static I indices(const int32_t* p) {
        I a;
        for (int i = 0; i < 4; ++i) a.v[i] = static_cast<uint8_t>(p[i]);
        return a;
    }
    static F spread(const float* p, I index) { return {{p[index.v[0]], p[index.v[1]], p[index.v[2]], p[index.v[3]]}}; }

    static I load_codes(const uint8_t* p) { return load_part(p, 16); }
    static I load_part(const uint8_t* p, int64_t bytes) {
        I a{};
        for (int64_t i = 0; i < bytes; ++i) a.v[i] = p[i];
        return a;
    }
    static I bytes_of_three(const uint8_t* p, int64_t bytes) {
        I a{};
        for (int i = 0; i < 16; ++i) {
            const int at = 3 * i / 8, low = at < bytes ? p[at] : 0, high = at + 1 < bytes ? p[at + 1] : 0;
            a.v[i] = static_cast<uint8_t>((low | high << 8) >> 3 * i % 8 & 7);
        }
        return a;
    }
    static I words_of_three(const uint8_t* p, int64_t bytes) {
        I a{};
        for (int i = 0; i < 12 && i < bytes; ++i) a.v[i / 3 * 4 + i % 3] = p[i];
        return a;
    }

    template <int Format>
    static void unpack(I w, I* q) {
        if constexpr (Format == kEight || Format == kThree) {
            q[0] = w;
        } else if constexpr (Format == kBase3) {
            for (int d = 0; d < 5; ++d)
                for (int i = 0; i < 16; ++i) {
                    q[d].v[i] = static_cast<uint8_t>(3 * w.v[i] >> 8 << 6);
                    w.v[i] = static_cast<uint8_t>(3 * w.v[i]);
                }
        } else {
            for (int p = 0; p < 8 / Format; ++p)
                for (int i = 0; i < 16; ++i)
                    q[p].v[i] = static_cast<uint8_t>(w.v[i] >> p * Format & ((1 << Format) - 1));
        }
    }
    template <int Format>
    static I dot(I sum, I codes, const int8_t* x) {
        for (int i = 0; i < 4; ++i) {
            int32_t total = word(sum, i);
            for (int k = 4 * i; k < 4 * i + 4; ++k) total += codes.v[k] * x[k];
            for (int k = 0; k < 4; ++k) sum.v[4 * i + k] = static_cast<uint8_t>(static_cast<uint32_t>(total) >> 8 * k);
        }
        return sum;
    }

    template <int Format>
    static I prepare_levels(I w) { return w; }
    template <int Format, int K>
    static F level(I w) {
        F f;
        for (int i = 0; i < 4; ++i) {
            const uint32_t code = static_cast<uint32_t>(word(w, i)) >> (K * Format) & ((1u << Format) - 1);
            f.v[i] = static_cast<float>(static_cast<int>(code) - (1 << (Format - 1)));
        }
        return f;
    }
    template <int Byte>
    static F trit(I digits) {
        F f;
        for (int i = 0; i < 4; ++i) f.v[i] = static_cast<float>((digits.v[4 * i + Byte] >> 6) - 1);
        return f;
    }
};

#include "uniform.inl"

}  // namespace

const Table* portable_table() {
    static const Table table{"portable", tile_columns, lane_columns, uniform_prepare, uniform_scratch, uniform_rows};
    return &table;
}

}  // namespace harness
