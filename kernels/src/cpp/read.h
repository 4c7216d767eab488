// Reading memory and nothing else: the ceiling that products are compared with.
#pragma once

#include <cstdint>

namespace harness {

// The sum of 64-bit words, read in `streams` places at a time, with `ahead` bytes prefetched (0: none): into all caches,
// or, where they are read `once`, into the first alone.
uint64_t read_words(const uint64_t* p, int64_t words, int64_t streams, int64_t ahead, bool once);

}  // namespace harness
