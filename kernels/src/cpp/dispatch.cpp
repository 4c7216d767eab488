#include "dispatch.h"

#include <atomic>

#if defined(HARNESS_ARM) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace harness {
namespace {

std::atomic<const Table*> chosen{nullptr};

}  // namespace

std::vector<const Table*> available() {
    std::vector<const Table*> tables;
#if defined(HARNESS_X86)
    __builtin_cpu_init();
#if defined(HARNESS_EMULATE)
    tables.push_back(avx512_table());
#else
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") &&
        __builtin_cpu_supports("avx512vnni"))
        tables.push_back(avx512_table());
#endif
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        tables.push_back(avx2_table());
#elif defined(HARNESS_ARM)
#if defined(__linux__)
    constexpr unsigned long dot_products = 1ul << 20;  // HWCAP_ASIMDDP, which old headers lack
    if (getauxval(AT_HWCAP) & dot_products) tables.push_back(dotprod_table());
#elif defined(__APPLE__)
    tables.push_back(dotprod_table());  // all that run macOS have them
#endif
    tables.push_back(neon_table());
#endif
    tables.push_back(portable_table());
    return tables;
}

bool choose_table(const std::string& name) {
    for (const Table* t : available())
        if (t->name == name) {
            chosen = t;
            return true;
        }
    return false;
}

// The best one, or what HARNESS_KERNELS_ISA names where this machine has it.
const Table& table() {
    if (!chosen) {
        const char* wanted = std::getenv("HARNESS_KERNELS_ISA");
        if (!wanted || !choose_table(wanted)) chosen = available().front();
    }
    return *chosen;
}

}  // namespace harness
