// Products by table lookup, with bit planes and with sparse ternary weights.
#include "bindings.h"
#include "dispatch.h"
#include "threads.h"

#include <algorithm>
#include <cstring>

namespace harness {
namespace {

constexpr int64_t kTileRows = 32;

void lookup(Array x, Output y, Array codes, std::optional<Array> signs, Array scale, std::optional<Array> offset,
            int64_t group_size) {
    Lookup w{};
    Product p{};
    const auto* from = data<const float>(x, "x", kFloat32, {-1, -1});
    p.batch = static_cast<int64_t>(x.shape(0));
    p.n = static_cast<int64_t>(x.shape(1));
    p.y = data<float>(y, "y", kFloat32, {p.batch, -1});
    p.m = static_cast<int64_t>(y.shape(1));
    const int64_t tiles = (p.m + kTileRows - 1) / kTileRows, columns = (p.n + 7) / 8;
    w.codes = data<const uint8_t>(codes, "codes", kUint8, {tiles, columns, -1, kTileRows});
    w.planes = static_cast<int>(codes.shape(2));
    if (w.planes < 1 || w.planes > (signs ? 1 : 4)) fail("codes: has " + std::to_string(w.planes) + " planes");
    if (group_size != -1 && (group_size < 8 || group_size % 8))
        fail("group_size: is " + std::to_string(group_size) + "; accepted are multiples of 8, or -1 for the whole row");
    w.groups = group_size == -1 || group_size >= p.n ? 1 : (p.n + group_size - 1) / group_size;
    w.group = w.groups == 1 ? columns * 8 : group_size;
    if (signs) w.signs = data<const uint8_t>(*signs, "signs", kUint8, {tiles, (p.n + 31) / 32, kTileRows});
    w.scale = data<const uint16_t>(scale, "scale", kFloat16, {tiles, w.groups, -1, kTileRows});
    w.scales = static_cast<int>(scale.shape(2));
    if (w.scales != 1 && w.scales != w.planes)
        fail("scale: has " + std::to_string(w.scales) + " scales; accepted are one, or one for each plane");
    if (offset) w.offset = data<const uint16_t>(*offset, "offset", kFloat16, {tiles, w.groups, kTileRows});
    if (p.m == 0 || p.batch == 0 || p.n == 0) {
        std::fill_n(p.y, p.m * p.batch, 0.0f);
        return;
    }
    nb::gil_scoped_release release;
    const Table& t = table();
    const int64_t block = t.lookup_block(w);
    LookupTables tables{};
    tables.blocks = (p.n + block - 1) / block;
    tables.table_stride = columns * 32;
    thread_local Buffer padded, entries, worths, sums;
    auto* values = padded.of<float>(p.batch * columns * 8);
    auto* table = entries.of<int8_t>(p.batch * tables.table_stride);
    auto *worth = worths.of<float>(p.batch * tables.blocks), *sum = sums.of<float>(p.batch * tables.blocks);
    parallel(p.batch, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t b = begin; b < end; ++b) {
            float* to = values + b * columns * 8;
            std::memcpy(to, from + b * p.n, static_cast<size_t>(p.n) * sizeof(float));
            std::fill(to + p.n, to + columns * 8, 0.0f);
            t.lookup_tables(w, p.n, to, table + b * tables.table_stride, worth + b * tables.blocks,
                            sum + b * tables.blocks);
        }
    });
    tables.table = table;
    tables.worth = worth;
    tables.sum = sum;
    parallel(tiles, std::max<int64_t>(1, grain(columns * w.planes) / kTileRows),
             [&](int64_t begin, int64_t end, int) { t.lookup_rows(p, w, tables, begin, end); });
}

}  // namespace

void bind_lookup(nb::module_& m) {
    m.def("lookup", &lookup, "x"_a, "y"_a, "codes"_a, "signs"_a.none(), "scale"_a, "offset"_a.none(), "group_size"_a);
}

}  // namespace harness
