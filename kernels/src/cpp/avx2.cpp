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
    static constexpr int rows = 4;                   // of a block, as registers allow,
    static constexpr int batch = 4, batch_rows = 1;  // and with several rows of activations
};

#include "activations.inl"
#include "uniform.inl"

}  // namespace

const Table* avx2_table() {
    static const Table table = filled("avx2");
    return &table;
}

}  // namespace harness
