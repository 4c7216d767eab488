#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "checks.h"
#include "kernels.h"
#include "read.h"
#include "threads.h"

namespace harness {
namespace {

// Bytes of weight in one piece of work: long enough to stream, short enough to share among threads.
constexpr int64_t kPiece = 1 << 17;

std::vector<const Table*> available() {
    std::vector<const Table*> tables;
#if defined(HARNESS_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") &&
        __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vnni"))
        tables.push_back(avx512_table());
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        tables.push_back(avx2_table());
#endif
    tables.push_back(portable_table());
    return tables;
}

const Table* chosen = nullptr;

const Table& table() {
    if (!chosen) chosen = available().front();
    return *chosen;
}

// Memory aligned to cache lines, kept from call to call by each calling thread.
class Buffer {
public:
    template <class T>
    T* of(int64_t count) {
        const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 127) / 64 * 64;
        if (bytes > size_) {
            data_.reset(static_cast<char*>(std::aligned_alloc(64, bytes)));
            if (!data_) throw std::bad_alloc();
            size_ = bytes;
        }
        return reinterpret_cast<T*>(data_.get());
    }

private:
    struct Free {
        void operator()(char* p) const { std::free(p); }
    };
    std::unique_ptr<char, Free> data_;
    size_t size_ = 0;
};

int64_t grain(int64_t row_bytes) {
    return std::max<int64_t>(4, kPiece / std::max<int64_t>(row_bytes, 1) / 4 * 4);
}

int format_of(const std::string& name) {
    if (name == "2") return kTwo;
    if (name == "3") return kThree;
    if (name == "4") return kFour;
    if (name == "8") return kEight;
    if (name == "base3") return kBase3;
    fail("format: is " + name + "; accepted are 2, 3, 4, 8 and base3");
}

int64_t row_bytes(int format, int64_t n) { return format == kBase3 ? (n + 4) / 5 : (n * format + 7) / 8; }

int64_t group_multiple(const std::string& format, bool int8) { return table().lane(format_of(format), int8); }

void uniform(Array x, Output y, Array codes, Array scale, std::optional<Array> zero, const std::string& format,
             int64_t group_size, bool int8) {
    Uniform u{};
    u.format = format_of(format);
    u.int8 = int8;
    u.x = data<const float>(x, "x", kFloat32, {-1, -1});
    u.batch = static_cast<int64_t>(x.shape(0));
    u.n = static_cast<int64_t>(x.shape(1));
    u.row_bytes = row_bytes(u.format, u.n);
    u.codes = data<const uint8_t>(codes, "codes", kUint8, {-1, u.row_bytes});
    u.m = static_cast<int64_t>(codes.shape(0));
    u.y = data<float>(y, "y", kFloat32, {u.batch, u.m});
    if (group_size != -1 && group_size < 1)
        fail("group_size: is " + std::to_string(group_size) + "; accepted are 1 and more, or -1 for the whole row");
    u.groups = group_size == -1 || group_size >= u.n ? 1 : (u.n + group_size - 1) / group_size;
    u.group = u.groups == 1 ? std::max<int64_t>(u.n, 1) : group_size;
    const bool one = scale.ndim() == 2 && scale.shape(0) == 1 && scale.shape(1) == 1;
    const int64_t scale_rows = one ? 1 : u.m, scale_columns = one ? 1 : u.groups;
    u.scale = data<const uint16_t>(scale, "scale", kFloat16, {scale_rows, scale_columns});
    u.scale_stride = one && u.groups > 1 ? 0 : u.groups;
    if (one && u.m > 1) u.scale_stride = 0;
    u.zero_width = u.format;
    u.zero_constant = u.format == kBase3 ? 1.0f : static_cast<float>(1 << (u.format - 1));
    if (zero && is(*zero, kUint8)) {
        if (u.format == kBase3) fail("zero: base3 codes have no zero points");
        u.zero_bytes = (scale_rows * scale_columns * u.zero_width + 7) / 8;
        u.zero_bits = data<const uint8_t>(*zero, "zero", kUint8, {u.zero_bytes});
    } else if (zero) {
        u.zero_half = data<const uint16_t>(*zero, "zero", kFloat16, {scale_rows, scale_columns});
    }
    const int64_t lane = table().lane(u.format, int8);
    if (u.groups > 1 && u.group % lane)
        fail("group_size: is " + std::to_string(group_size) + "; accepted are multiples of " + std::to_string(lane) +
             ", or -1 for the whole row");
    if (u.m == 0 || u.batch == 0) return;
    if (u.n == 0) {
        std::fill(u.y, u.y + u.m * u.batch, 0.0f);
        return;
    }

    nb::gil_scoped_release release;
    const Table& t = table();
    const int64_t tile = t.tile(u.format, int8);
    Activations a{};
    a.tiles = (u.n + tile - 1) / tile;
    a.stride = a.tiles * tile;
    thread_local Buffer values, scales, sums, scratch;
    a.values = values.of<char>(u.batch * a.stride * t.activation_bytes(u.format, int8));
    a.tile_scale = scales.of<float>(u.batch * a.tiles);
    a.group_sum = sums.of<float>(u.batch * u.groups);
    parallel(u.batch, 4, [&](int64_t begin, int64_t end, int) {
        for (int64_t b = begin; b < end; ++b) t.uniform_prepare(u, a, b);
    });
    const int64_t each = (t.uniform_scratch(u, a) + 31) / 32 * 32;
    float* space = scratch.of<float>(each * std::max(1, threads()));
    parallel(u.m, grain(u.row_bytes), [&](int64_t begin, int64_t end, int worker) {
        t.uniform_rows(u, a, begin, end, space + worker * each);
    });
}

// Reads every byte with the threads in use; gives a sum, so that no compiler skips it.
uint64_t read_all(Array array, int64_t streams, int64_t ahead) {
    const auto* p = reinterpret_cast<const uint64_t*>(data<const uint8_t>(array, "array", kUint8, {-1}));
    if (streams < 1 || ahead < 0) fail("streams and ahead: accepted are 1 and more, and 0 and more bytes");
    const int64_t words = static_cast<int64_t>(array.size()) / 8;
    nb::gil_scoped_release release;
    std::atomic<uint64_t> sum{0};
    parallel(words, kPiece, [&](int64_t begin, int64_t end, int) {  // pieces of a MiB
        sum += read_words(p + begin, end - begin, streams, ahead);
    });
    return sum;
}

void choose(const std::string& name) {
    std::string known;
    for (const Table* t : available()) {
        if (t->name == name) {
            chosen = t;
            return;
        }
        known += (known.empty() ? "" : ", ") + std::string(t->name);
    }
    fail("instruction set: is " + name + "; this machine has " + known);
}

}  // namespace
}  // namespace harness

NB_MODULE(_native, m) {
    using namespace harness;
    namespace nb = nanobind;
    using namespace nb::literals;
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
    m.def("set_isa", &choose);
    m.def("read", &read_all, "array"_a, "streams"_a = 1, "ahead"_a = 0);
    m.def("group_multiple", &group_multiple);
    m.def("uniform", &uniform, "x"_a, "y"_a, "codes"_a, "scale"_a, "zero"_a.none(), "format"_a, "group_size"_a, "int8"_a);
}
