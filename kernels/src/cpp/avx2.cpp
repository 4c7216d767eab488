// AVX2 with FMA and F16C: Haswell and later, Zen and later.
#include <immintrin.h>

#include <cstring>
#include <type_traits>

#include "half.h"
#include "kernels.h"

namespace harness {
namespace {

#include "avx2.inl"

struct Isa : Avx2 {
    // Rows of the weight in a block, as registers allow; with several rows of activations, fewer.
    template <int Format>
    static constexpr int rows = 2;
    static constexpr int float_rows = 4, batch = 4, batch_rows = 1;
    static constexpr bool unit_sums = true;  // see sums.inl
};

using Narrow = Avx2;  // where eight or four floats are the natural width

#include "activations.inl"
#include "uniform.inl"
#include "rows.inl"
#include "lookup.inl"
#include "table.inl"

}  // namespace

const Table* avx2_table() {
    static const Table table = filled("avx2");
    return &table;
}

}  // namespace harness
