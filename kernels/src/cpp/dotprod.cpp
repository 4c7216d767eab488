// NEON with dot products of bytes: Cortex-A55 and A76, Neoverse N1 and later, Apple M1 and later.
#include <arm_neon.h>

#include <cstring>
#include <type_traits>

#include "half.h"
#include "kernels.h"

#define HARNESS_NEON 1  // the compiler's own macro is set in portable.cpp too

namespace harness {
namespace {

#include "neon.inl"

struct Isa : Neon {
    // Rows of the weight in a block, as registers allow; with several rows of activations, fewer.
    template <int Format>
    static constexpr int rows = 4;
    static constexpr int float_rows = 4, batch = 4, batch_rows = 2;
    static constexpr bool unit_sums = false;  // sums are 32 bits wide from the start

    // Both sides are signed: codes of 8 bits are taken less 128, and 128 times the activations is added at the end.
    template <int Format>
    struct Int {
        static constexpr bool wide = Format == kEight;
        using X = int8_t;
        static constexpr int fields = wide ? 1 : Neon::Int<Format>::fields;
        static constexpr int sums = wide ? 2 : 1;
        static constexpr float unit = 1;

        static void unpack(I w, I* q) {
            if constexpr (wide) q[0] = from_bytes(veorq_u8(bytes(w), vdupq_n_u8(128)));
            else Neon::Int<Format>::unpack(w, q);
        }
        template <int P>
        static void add(I* sum, I codes, I x) {
            sum[0] = vdotq_s32(sum[0], vreinterpretq_s8_s32(codes), vreinterpretq_s8_s32(x));
            if constexpr (wide) sum[1] = vdotq_s32(sum[1], vdupq_n_s8(1), vreinterpretq_s8_s32(x));
        }
        static I finish(const I* sum) {
            if constexpr (wide) return vaddq_s32(sum[0], vshlq_n_s32(sum[1], 7));
            else return sum[0];
        }
    };
};

using Narrow = Neon;  // where eight or four floats are the natural width

#include "activations.inl"
#include "uniform.inl"
#include "rows.inl"
#include "lookup.inl"
#include "table.inl"
#include "neon_rows.inl"

}  // namespace

const Table* dotprod_table() {
    static const Table table = filled_by_neon("dotprod");
    return &table;
}

}  // namespace harness
