// NEON: every 64-bit ARM processor.
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
    static constexpr int float_rows = 4, batch = 4, batch_rows = 1;
    static constexpr bool unit_sums = false;  // adding up across lanes is cheap
};

using Narrow = Neon;  // where eight or four floats are the natural width

#include "activations.inl"
#include "uniform.inl"
#include "rows.inl"
#include "lookup.inl"
#include "table.inl"
#include "neon_rows.inl"

}  // namespace

const Table* neon_table() {
    static const Table table = filled_by_neon("neon");
    return &table;
}

}  // namespace harness
