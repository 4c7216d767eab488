// Products with dense, sparse and codebook weights: arguments from Python, and the work shared among threads.
#include "bindings.h"
#include "dispatch.h"
#include "threads.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace harness {
namespace {

constexpr int64_t kPadding = 16;  // floats after each row of activations, as the kernels want

// Checks x (batch, n) and y (batch, m), and copies x with its padding.
Product product_of(const Array& x, const Output& y, int64_t m, Buffer& padded) {
    Product p{};
    const auto* from = data<const float>(x, "x", kFloat32, {-1, -1});
    p.batch = static_cast<int64_t>(x.shape(0));
    p.n = static_cast<int64_t>(x.shape(1));
    p.m = m;
    p.y = data<float>(y, "y", kFloat32, {p.batch, m});
    p.x_stride = p.n + kPadding;
    float* to = padded.of<float>(p.batch * p.x_stride);
    for (int64_t b = 0; b < p.batch; ++b) {
        if (p.n) std::memcpy(to + b * p.x_stride, from + b * p.n, static_cast<size_t>(p.n) * sizeof(float));
        std::fill_n(to + b * p.x_stride + p.n, kPadding, 0.0f);
    }
    p.x = to;
    return p;
}

// Nothing to multiply: y is zero, or has no elements.
bool trivial(const Product& p) {
    if (p.m && p.batch && p.n) return false;
    std::fill_n(p.y, p.m * p.batch, 0.0f);
    return true;
}

Buffer& padded() {
    thread_local Buffer buffer;
    return buffer;
}

void dense(Array x, Output y, Array weight) {
    Dense d{};
    const Type& type = is(weight, kFloat16) ? kFloat16 : is(weight, kBfloat16) ? kBfloat16 : kFloat32;
    d.type = is(weight, kFloat16) ? kF16 : is(weight, kBfloat16) ? kBF16 : kF32;
    const int64_t n = x.ndim() == 2 ? static_cast<int64_t>(x.shape(1)) : -1;
    d.weight = data<const void>(weight, "weight", type, {-1, n});
    const Product p = product_of(x, y, static_cast<int64_t>(weight.shape(0)), padded());
    if (trivial(p)) return;
    nb::gil_scoped_release release;
    const Table& t = table();
    parallel(p.m, grain(p.n * type.bits / 8),
             [&](int64_t begin, int64_t end, int) { t.dense_rows(p, d, begin, end); });
}

// For each byte of an index or of a mask: from which bytes of the packed half-precision values those of eight columns
// come, 128 where a column has none.
struct alignas(16) Places {
    uint8_t bytes[256][16];

    template <class Columns>
    explicit Places(Columns columns_of) {
        std::memset(bytes, 128, sizeof bytes);
        for (int byte = 0; byte < 256; ++byte) {
            int value = 0;
            for (const int column : columns_of(byte)) {
                bytes[byte][2 * column] = static_cast<uint8_t>(2 * value);
                bytes[byte][2 * column + 1] = static_cast<uint8_t>(2 * value + 1);
                ++value;
            }
        }
    }
};

std::vector<int> columns_of_index(int byte) { return {byte & 3, byte >> 2 & 3, 4 + (byte >> 4 & 3), 4 + (byte >> 6)}; }

std::vector<int> columns_of_mask(int byte) {
    std::vector<int> columns;
    for (int i = 0; i < 8; ++i)
        if (byte >> i & 1) columns.push_back(i);
    return columns;
}

void two_of_four(Array x, Output y, Array values, Array index) {
    TwoOfFour w{};
    const int64_t n = x.ndim() == 2 ? static_cast<int64_t>(x.shape(1)) : 0;
    w.kept = (n + 3) / 4 * 2;
    w.values = data<const uint16_t>(values, "values", kFloat16, {-1, w.kept});
    const auto m = static_cast<int64_t>(values.shape(0));
    w.index = data<const uint8_t>(index, "index", kUint8, {m, (w.kept + 3) / 4});
    static const Places places(columns_of_index);
    w.places = places.bytes[0];
    const Product p = product_of(x, y, m, padded());
    if (trivial(p)) return;
    nb::gil_scoped_release release;
    const Table& t = table();
    parallel(m, grain(w.kept * 2), [&](int64_t begin, int64_t end, int) { t.two_of_four_rows(p, w, begin, end); });
}

void bitmap(Array x, Output y, Array mask, Array values) {
    Bitmap w{};
    const int64_t n = x.ndim() == 2 ? static_cast<int64_t>(x.shape(1)) : 0, bytes = (n + 7) / 8;
    w.mask = data<const uint8_t>(mask, "mask", kUint8, {-1, bytes});
    w.values = data<const uint16_t>(values, "values", kFloat16, {-1});
    w.count = static_cast<int64_t>(values.shape(0));
    static const Places places(columns_of_mask);
    w.places = places.bytes[0];
    const Product p = product_of(x, y, static_cast<int64_t>(mask.shape(0)), padded());
    if (trivial(p)) return;
    thread_local Buffer starts;
    auto* first = starts.of<int64_t>(p.m + 1);
    const unsigned last = n % 8 ? (1u << n % 8) - 1 : 255;
    std::atomic<bool> beyond{false};
    {
        nb::gil_scoped_release release;
        parallel(p.m, grain(bytes), [&](int64_t begin, int64_t end, int) {
            for (int64_t row = begin; row < end; ++row) {
                const uint8_t* at = w.mask + row * bytes;
                int64_t kept = 0, j = 0;
                for (; j + 8 <= bytes; j += 8) {
                    uint64_t word;
                    std::memcpy(&word, at + j, 8);
                    kept += __builtin_popcountll(word);
                }
                for (; j < bytes; ++j) kept += __builtin_popcount(at[j]);
                if (at[bytes - 1] & ~last) beyond = true;
                first[row + 1] = kept;
            }
        });
    }
    first[0] = 0;
    for (int64_t row = 0; row < p.m; ++row) first[row + 1] += first[row];
    if (beyond) fail("mask: has bits set beyond the last column");
    if (first[p.m] != w.count)
        fail("values: has " + std::to_string(w.count) + " elements; accepted are the " + std::to_string(first[p.m]) +
             " that the mask keeps");
    w.first = first;
    nb::gil_scoped_release release;
    const Table& t = table();
    parallel(p.m, grain(2 * w.count / p.m + bytes),
             [&](int64_t begin, int64_t end, int) { t.bitmap_rows(p, w, begin, end); });
}

void sparse_rows(Array x, Output y, Array rows, Array columns, Array values) {
    SparseRows w{};
    const int64_t n = x.ndim() == 2 ? static_cast<int64_t>(x.shape(1)) : 0;
    w.rows = data<const int32_t>(rows, "rows", kInt32, {-1});
    if (rows.shape(0) < 1) fail("rows: is empty; accepted is the start of each row, and the end");
    w.values = data<const uint16_t>(values, "values", kFloat16, {-1});
    const auto count = static_cast<int64_t>(values.shape(0));
    w.wide = is(columns, kInt32);
    w.columns = data<const void>(columns, "columns", w.wide ? kInt32 : kUint16, {count});
    const auto m = static_cast<int64_t>(rows.shape(0)) - 1;
    const Product p = product_of(x, y, m, padded());
    bool ordered = w.rows[0] == 0 && w.rows[m] == count;
    for (int64_t row = 0; row < m; ++row) ordered = ordered && w.rows[row] <= w.rows[row + 1];
    if (!ordered) fail("rows: do not rise from 0 to the " + std::to_string(count) + " values");
    int64_t most = -1, smallest = 0;
    const auto bounds = [&](const auto* column) {
        auto low = count ? column[0] : 0, high = low;
        for (int64_t k = 0; k < count; ++k) {
            low = std::min<decltype(low)>(low, column[k]);
            high = std::max<decltype(high)>(high, column[k]);
        }
        if (count) smallest = low, most = high;
    };
    if (w.wide) bounds(static_cast<const int32_t*>(w.columns));
    else bounds(static_cast<const uint16_t*>(w.columns));
    if (smallest < 0 || most >= n) fail("columns: holds numbers outside of the " + std::to_string(n) + " columns");
    if (trivial(p)) return;
    nb::gil_scoped_release release;
    const Table& t = table();
    parallel(m, grain(4 * count / std::max<int64_t>(m, 1)),
             [&](int64_t begin, int64_t end, int) { t.sparse_rows(p, w, begin, end); });
}

void codebook(Array x, Output y, Array codes, std::optional<Array> high, Array book, int bits) {
    Codebook w{};
    if (bits < 1 || bits > 16) fail("bits: is " + std::to_string(bits) + "; accepted are 1 to 16");
    const int64_t n = x.ndim() == 2 ? static_cast<int64_t>(x.shape(1)) : 0;
    const int low = std::min(bits, 8);
    w.bits = bits;
    w.row_bytes = (n * low + 7) / 8;
    w.codes = data<const uint8_t>(codes, "codes", kUint8, {-1, w.row_bytes});
    const auto rows = static_cast<int64_t>(codes.shape(0));
    w.book = data<const float>(book, "book", kFloat32, {int64_t{1} << bits, -1});
    w.vector = static_cast<int>(book.shape(1));
    if (w.vector < 1) fail("book: has empty vectors");
    if ((bits > 8) != high.has_value()) fail("high: accepted where indices have more than 8 bits, and only there");
    if (high) {
        w.high_bytes = (n * (bits - low) + 7) / 8;
        w.high = data<const uint8_t>(*high, "high", kUint8, {rows, w.high_bytes});
    }
    const int64_t m = y.ndim() == 2 ? static_cast<int64_t>(y.shape(1)) : 0;
    if ((m + w.vector - 1) / w.vector != rows)
        fail("codes: has " + std::to_string(rows) + " rows of " + std::to_string(w.vector) + "; accepted are those of " +
             std::to_string(m) + " outputs");
    const Product p = product_of(x, y, m, padded());
    if (trivial(p)) return;
    nb::gil_scoped_release release;
    const Table& t = table();
    parallel(rows, std::max<int64_t>(1, grain(w.row_bytes + w.high_bytes) / 4),
             [&](int64_t begin, int64_t end, int) { t.codebook_rows(p, w, begin, end); });
}

}  // namespace

void bind_formats(nb::module_& m) {
    m.def("dense", &dense, "x"_a, "y"_a, "weight"_a);
    m.def("two_of_four", &two_of_four, "x"_a, "y"_a, "values"_a, "index"_a);
    m.def("bitmap", &bitmap, "x"_a, "y"_a, "mask"_a, "values"_a);
    m.def("sparse_rows", &sparse_rows, "x"_a, "y"_a, "rows"_a, "columns"_a, "values"_a);
    m.def("codebook", &codebook, "x"_a, "y"_a, "codes"_a, "high"_a.none(), "book"_a, "bits"_a);
}

}  // namespace harness
