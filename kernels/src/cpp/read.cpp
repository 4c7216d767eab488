#include "read.h"

#include <cstring>

#if defined(HARNESS_X86)
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif

namespace harness {

WIDEST uint64_t read_words(const uint64_t* p, int64_t words, int64_t streams, int64_t ahead, bool once) {
    constexpr int64_t kStep = 64;  // words: eight lines of the cache
    uint64_t sum[kStep] = {};
    const int64_t part = words / streams / kStep * kStep;
    for (int64_t i = 0; i < part; i += kStep)
        for (int64_t s = 0; s < streams; ++s) {
            const uint64_t* at = p + s * part + i;
            for (int64_t k = 0; ahead && k < kStep; k += 8) {
                if (once) __builtin_prefetch(at + ahead / 8 + k, 0, 0);
                else __builtin_prefetch(at + ahead / 8 + k);
            }
            for (int64_t k = 0; k < kStep; ++k) sum[k] += at[k];
        }
    uint64_t total = 0;
    for (int64_t k = 0; k < kStep; ++k) total += sum[k];
    return total;
}

}  // namespace harness
