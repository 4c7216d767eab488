#include <nanobind/stl/vector.h>

#include <atomic>
#include <string>
#include <vector>

#include "bindings.h"
#include "dispatch.h"
#include "read.h"
#include "threads.h"

namespace harness {
namespace {

// Reads every byte with the threads in use; gives a sum, so that no compiler skips it.
uint64_t read_all(Array array, int64_t streams, int64_t ahead, bool once) {
    const auto* p = reinterpret_cast<const uint64_t*>(data<const uint8_t>(array, "array", kUint8, {-1}));
    if (streams < 1 || ahead < 0) fail("streams and ahead: accepted are 1 and more, and 0 and more bytes");
    const int64_t words = static_cast<int64_t>(array.size()) / 8;
    nb::gil_scoped_release release;
    std::atomic<uint64_t> sum{0};
    parallel(words, 1 << 17, [&](int64_t begin, int64_t end, int) {  // pieces of a MiB
        sum += read_words(p + begin, end - begin, streams, ahead, once);
    });
    return sum;
}

void set_isa(const std::string& name) {
    if (choose_table(name)) return;
    std::string known;
    for (const Table* t : available()) known += (known.empty() ? "" : ", ") + std::string(t->name);
    fail("instruction set: is " + name + "; this machine has " + known);
}

}  // namespace
}  // namespace harness

NB_MODULE(_native, m) {
    using namespace harness;
    m.def("threads", &threads);
    m.def("set_threads", [](int count) {
        if (count < 1) fail("threads: is " + std::to_string(count) + "; accepted are 1 and more");
        set_threads(count);
    });
    m.def("isa", [] { return std::string(table().name); });
    m.def("isas", [] {
        std::vector<std::string> names;
        for (const Table* t : available()) names.emplace_back(t->name);
        return names;
    });
    m.def("set_isa", &set_isa);
    m.def("read", &read_all, "array"_a, "streams"_a = 1, "ahead"_a = 0, "once"_a = false);
    m.def("multiply", [](int64_t rounds) {
        nb::gil_scoped_release release;
        return table().multiply(rounds);
    }, "rounds"_a);
    bind_uniform(m);
    bind_formats(m);
    bind_lookup(m);
    bind_entropy(m);
}
