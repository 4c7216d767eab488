// A pool of threads that is started by the first call that needs it, never at import.
#pragma once

#include <cstdint>
#include <functional>

namespace harness {

int threads();
void set_threads(int count);

// Runs body(begin, end, worker) over [0, count) in pieces of `grain`; returns when all are done. Pieces are handed out
// in order to whichever thread is free; the result must not depend on who computes what.
void parallel(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t, int)>& body);

}  // namespace harness
