// What the files that bind kernels to Python share.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>

#include "checks.h"

namespace harness {

using namespace nb::literals;

// Rows of a weight in one piece of work: 128 KiB of it, long enough to stream, short enough to share among threads.
inline int64_t grain(int64_t row_bytes) {
    return std::max<int64_t>(4, (1 << 17) / std::max<int64_t>(row_bytes, 1) / 4 * 4);
}

void bind_uniform(nb::module_& m);
void bind_formats(nb::module_& m);
void bind_lookup(nb::module_& m);
void bind_entropy(nb::module_& m);

}  // namespace harness
