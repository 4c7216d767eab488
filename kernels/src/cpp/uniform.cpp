// Products with group-wise uniform and base-3 codes: arguments from Python, and the work shared among threads.
#include "bindings.h"
#include "dispatch.h"
#include "threads.h"

#include <algorithm>

namespace harness {
namespace {

int format_of(const std::string& name) {
    if (name == "2" || name == "ternary") return kTwo;
    if (name == "3") return kThree;
    if (name == "4") return kFour;
    if (name == "8") return kEight;
    if (name == "base3") return kBase3;
    fail("format: is " + name + "; accepted are 2, 3, 4, 8, ternary and base3");
}

int64_t row_bytes(int format, int64_t n) { return format == kBase3 ? (n + 4) / 5 : (n * format + 7) / 8; }

// The weight alone: m rows of n columns.
Uniform weight_of(int64_t n, const Array& codes, const Array& scale, const std::optional<Array>& zero,
                  const std::string& format, int64_t group_size) {
    Uniform u{};
    u.format = format_of(format);
    u.n = n;
    u.row_bytes = row_bytes(u.format, n);
    u.codes = data<const uint8_t>(codes, "codes", kUint8, {-1, u.row_bytes});
    u.m = static_cast<int64_t>(codes.shape(0));
    if (group_size != -1 && group_size < 1)
        fail("group_size: is " + std::to_string(group_size) + "; accepted are 1 and more, or -1 for the whole row");
    u.groups = group_size == -1 || group_size >= n ? 1 : (n + group_size - 1) / group_size;
    u.group = u.groups == 1 ? std::max<int64_t>(n, 1) : group_size;
    const bool one = scale.ndim() == 2 && scale.shape(0) == 1 && scale.shape(1) == 1;
    const int64_t scale_rows = one ? 1 : u.m, scale_columns = one ? 1 : u.groups;
    u.scale = data<const uint16_t>(scale, "scale", kFloat16, {scale_rows, scale_columns});
    u.scale_stride = one && u.m * u.groups > 1 ? 0 : u.groups;
    u.zero_width = u.format;
    u.zero_constant = u.format == kBase3 || format == "ternary" ? 1.0f : static_cast<float>(1 << (u.format - 1));
    if (zero && is(*zero, kUint8)) {
        if (u.format == kBase3) fail("zero: base3 codes have no zero points");
        u.zero_bytes = (scale_rows * scale_columns * u.zero_width + 7) / 8;
        u.zero_bits = data<const uint8_t>(*zero, "zero", kUint8, {u.zero_bytes});
    } else if (zero) {
        u.zero_half = data<const uint16_t>(*zero, "zero", kFloat16, {scale_rows, scale_columns});
    }
    return u;
}

void uniform(Array x, Output y, Array codes, Array scale, std::optional<Array> zero, const std::string& format,
             int64_t group_size, bool int8) {
    const auto* values_in = data<const float>(x, "x", kFloat32, {-1, -1});
    Uniform u = weight_of(static_cast<int64_t>(x.shape(1)), codes, scale, zero, format, group_size);
    u.x = values_in;
    u.batch = static_cast<int64_t>(x.shape(0));
    u.y = data<float>(y, "y", kFloat32, {u.batch, u.m});
    const Table& t = table();
    const int64_t lane = t.lane(u.format, int8);
    if (u.groups > 1 && u.group % lane)
        fail("group_size: is " + std::to_string(group_size) + "; accepted are multiples of " + std::to_string(lane) +
             ", or -1 for the whole row");
    if (u.m == 0 || u.batch == 0) return;
    if (u.n == 0) {
        std::fill(u.y, u.y + u.m * u.batch, 0.0f);
        return;
    }
    nb::gil_scoped_release release;
    u.planes = int8 ? 1 : t.float_planes(u);
    const int64_t tile = t.tile(u.format, u.planes > 0), rows = u.batch * std::max(1, u.planes);
    Activations a{};
    a.tiles = (u.n + tile - 1) / tile;
    a.stride = (a.tiles + 7) / 8 * 8 * tile;  // whole fours of units of two tiles
    thread_local Buffer values, scales, sums, scratch;
    a.values = values.of<char>(rows * a.stride * t.activation_bytes(u.format, u.planes > 0));
    a.tile_scale = scales.of<float>(rows * a.tiles);
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

// Rows `first` to first + rows of `out` of the weight as floats.
void uniform_decode(Output out, int64_t first, Array codes, Array scale, std::optional<Array> zero,
                    const std::string& format, int64_t group_size) {
    float* y = data<float>(out, "out", kFloat32, {-1, -1});
    const int64_t rows = static_cast<int64_t>(out.shape(0)), n = static_cast<int64_t>(out.shape(1));
    const Uniform u = weight_of(n, codes, scale, zero, format, group_size);
    if (first < 0 || first + rows > u.m) fail("first: is " + std::to_string(first) + "; accepted are rows of the weight");
    if (rows == 0 || n == 0) return;
    nb::gil_scoped_release release;
    const Table& t = table();
    const int64_t each = (2 * u.groups + 160) / 32 * 32;
    thread_local Buffer scratch;
    float* space = scratch.of<float>(each * std::max(1, threads()));
    parallel(rows, grain(u.row_bytes), [&](int64_t begin, int64_t end, int worker) {
        for (int64_t row = begin; row < end; ++row) t.uniform_decode(u, first + row, y + row * n, space + worker * each);
    });
}

}  // namespace

void bind_uniform(nb::module_& m) {
    m.def("group_multiple", [](const std::string& format, bool int8) { return table().lane(format_of(format), int8); });
    m.def("uniform", &uniform, "x"_a, "y"_a, "codes"_a, "scale"_a, "zero"_a.none(), "format"_a, "group_size"_a, "int8"_a);
    m.def("uniform_decode", &uniform_decode, "out"_a, "first"_a, "codes"_a, "scale"_a, "zero"_a.none(), "format"_a,
          "group_size"_a);
}

}  // namespace harness
