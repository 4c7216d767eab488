// Every instruction set of this machine against plain C++, without Python: tables NAME..., the names to be found.
//
// Shapes and numbers are random. Each array ends where a page without access begins, so reading or writing beyond it
// is an error, and results hold NaN before a kernel runs. kernels/neon.sh runs it for ARM on other machines.
#include "tables.h"

#include <signal.h>

namespace {

// ---- uniform and base-3 codes: see uniform.cpp

struct UniformWeight {
    Uniform u{};
    Bytes codes, zero_bits;
    Halves scale, zero_half;

    // zeros: 0 a constant, 1 integers, 2 half precision.
    UniformWeight(int format, bool ternary, int64_t m, int64_t n, int64_t group, int zeros, bool one)
        : codes(0), zero_bits(0), scale(0), zero_half(0) {
        u.format = format;
        u.m = m;
        u.n = n;
        u.row_bytes = format == kBase3 ? (n + 4) / 5 : (n * format + 7) / 8;
        u.groups = group == -1 || group >= n ? 1 : (n + group - 1) / group;
        u.group = u.groups == 1 ? n : group;
        codes = bytes(m * u.row_bytes);
        if (ternary)
            for (int64_t i = 0; i < codes.count(); ++i) codes[i] &= static_cast<uint8_t>(~(codes[i] >> 1 & 0x55));
        const int64_t scales = one ? 1 : m * u.groups;
        scale = Halves(scales, positive_half);
        u.scale_stride = one && m * u.groups > 1 ? 0 : u.groups;
        u.zero_width = format;
        u.zero_constant = format == kBase3 || ternary ? 1.0f : static_cast<float>(1 << (format - 1));
        if (zeros == 1 && format != kBase3) {
            u.zero_bytes = (scales * format + 7) / 8;
            zero_bits = bytes(u.zero_bytes);
            u.zero_bits = zero_bits.get();
        } else if (zeros == 2) {
            const int top = 1 << (format == kBase3 ? 1 : format);
            zero_half = Halves(scales, [&] { return 0x3C00 | between(0, 1023); });  // 1 to 2
            for (int64_t i = 0; i < scales; ++i)
                zero_half[i] = static_cast<uint16_t>(zero_half[i] + (between(0, top > 4 ? 2 : 0) << 10));
            u.zero_half = zero_half.get();
        }
        u.codes = codes.get();
        u.scale = scale.get();
    }
};

void multiply(const Table& t, Uniform u, bool int8, const float* x, int64_t batch, float* y) {
    u.x = x;
    u.y = y;
    u.batch = batch;
    u.planes = int8 ? 1 : t.float_planes(u);
    const int64_t tile = t.tile(u.format, u.planes > 0), rows = batch * std::max(1, u.planes);
    Activations a{};
    a.tiles = (u.n + tile - 1) / tile;
    a.stride = (a.tiles + 7) / 8 * 8 * tile;
    const Bytes values = bytes(rows * a.stride * t.activation_bytes(u.format, u.planes > 0));
    const Floats scales = poisoned(rows * a.tiles), sums = poisoned(batch * u.groups);
    a.values = values.get();
    a.tile_scale = scales.get();
    a.group_sum = sums.get();
    for (int64_t b = 0; b < batch; ++b) t.uniform_prepare(u, a, b);
    const Floats scratch = poisoned((t.uniform_scratch(u, a) + 31) / 32 * 32);
    in_pieces(u.m, [&](int64_t begin, int64_t end) { t.uniform_rows(u, a, begin, end, scratch.get()); });
}

// The sum of |x| times the largest that a code and its zero point can be worth, for each result.
std::vector<double> bound_of(const Uniform& u, const float* x, int64_t batch) {
    std::vector<double> bound(static_cast<size_t>(batch * u.m));
    const double worth = 1 << ((u.format == kBase3 ? 1 : u.format) + 1);
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t i = 0; i < u.m; ++i) {
            double& sum = bound[static_cast<size_t>(b * u.m + i)];
            for (int64_t j = 0; j < u.n; ++j) {
                const int64_t g = u.scale_stride ? i * u.scale_stride + j / u.group : 0;
                sum += std::fabs(static_cast<double>(x[b * u.n + j])) * size_of(u.scale[g]) * worth;
            }
            if (!std::isfinite(sum)) sum = std::numeric_limits<double>::quiet_NaN();
        }
    return bound;
}

std::string text(const Uniform& u, int64_t batch, bool int8) {
    return (u.format == kBase3 ? "base3" : std::to_string(u.format) + " bits") + (int8 ? ", int8, " : ", float, ") +
           std::to_string(u.m) + "x" + std::to_string(u.n) + " by " + std::to_string(batch) + ", group " +
           std::to_string(u.group) + (u.zero_half ? ", half zeros" : u.zero_bits ? ", integer zeros" : "") +
           (u.scale_stride ? "" : ", one scale");
}

void uniform_case(const UniformWeight& w, int64_t batch, bool int8, int kind) {
    const Uniform& u = w.u;
    doing = text(u, batch, int8);
    const bool uneven = kind == 1;
    Floats x(batch * u.n, [&] { return uneven ? std::ldexp(normal(), static_cast<int>(between(-12, 12))) : normal(); });
    if (kind == 2) x[between(0, x.count() - 1)] = one_of({INFINITY, -INFINITY, NAN});
    everywhere(bound_of(u, x.get(), batch), [&](const Table& t, float* y) { multiply(t, u, int8, x.get(), batch, y); });
}

void uniform_cases() {
    for (const int format : {kTwo, kThree, kFour, kEight, kBase3})
        for (const bool int8 : {false, true}) {
            const int64_t lane = portable_table()->lane(format, int8);
            for (int i = 0; i < 60; ++i) {
                int64_t group = one_of<int64_t>({-1, lane, 3 * lane, 32, 64, 128, 256, 512});
                if (group % lane) group = -1;
                const int64_t n = i < 20 ? 1 + 7 * i : between(1, 1300);
                const bool ternary = format == kTwo && i % 3 == 0;
                const UniformWeight w(format, ternary, between(1, 13), n, group, i % 3, i % 7 == 6);
                uniform_case(w, between(1, 9), int8, i % 10 == 9 ? 2 : i % 5 == 3);
            }
            // The largest sums that the kernels add up in integers.
            UniformWeight w(format, false, 5, 1300, -1, 0, false);
            std::memset(w.codes.get(), 255, static_cast<size_t>(w.codes.count()));
            for (const float sign : {1.0f, -1.0f}) {
                doing = text(w.u, 5, int8) + ", largest";
                const Floats x(5 * w.u.n, [&] { return sign; });
                everywhere(bound_of(w.u, x.get(), 5),
                           [&](const Table& t, float* y) { multiply(t, w.u, int8, x.get(), 5, y); });
            }
        }
}

void decode_cases() {
    for (const int format : {kTwo, kThree, kFour, kEight, kBase3})
        for (int i = 0; i < 20; ++i) {
            const int64_t n = between(1, 500);
            const int64_t group = format == kBase3 ? one_of<int64_t>({-1, 320}) : one_of<int64_t>({-1, 8, 32, 320});
            const UniformWeight w(format, false, between(1, 5), n, group, i % 3, i % 5 == 4);
            doing = "decode " + text(w.u, 0, false);
            const Floats scratch = poisoned((2 * w.u.groups + 160) / 32 * 32);
            everywhere(std::vector<double>(static_cast<size_t>(w.u.m * n)), [&](const Table& t, float* out) {
                for (int64_t row = 0; row < w.u.m; ++row) t.uniform_decode(w.u, row, out + row * n, scratch.get());
            });
        }
}

// ---- dense, sparse and codebook weights: see formats.cpp

std::string shape(const char* name, const Product& p) {
    return std::string(name) + " " + std::to_string(p.m) + "x" + std::to_string(p.n) + " by " + std::to_string(p.batch);
}

void dense_cases() {
    for (int i = 0; i < 90; ++i) {
        Padded a(between(1, 13), i < 30 ? 1 + i / 3 : between(1, 300), between(1, 9));
        const int64_t count = a.p.m * a.p.n;
        const int type = i % 3;
        doing = shape(type == kF32 ? "float32" : type == kF16 ? "float16" : "bfloat16", a.p);
        const Floats wide(type == kF32 ? count : 0, normal);
        const Halves narrow(type == kF32 ? 0 : count, [&] {
            const float value = normal();
            uint32_t bits;
            std::memcpy(&bits, &value, 4);
            return type == kF16 ? half() : bits >> 16;
        });
        Floats wide_sizes(wide.count());
        Halves narrow_sizes(narrow.count());
        for (int64_t k = 0; k < wide.count(); ++k) wide_sizes[k] = std::fabs(wide[k]);
        for (int64_t k = 0; k < narrow.count(); ++k) narrow_sizes[k] = narrow[k] & 0x7FFF;
        const auto with = [&](const void* weight) {
            return [&, weight](const Table& t, const Product& p) {
                in_pieces(p.m, [&](int64_t begin, int64_t end) { t.dense_rows(p, {type, weight}, begin, end); });
            };
        };
        a.check(type == kF32 ? with(wide.get()) : with(narrow.get()),
                type == kF32 ? with(wide_sizes.get()) : with(narrow_sizes.get()));
    }
}

Halves magnitudes(const Halves& values) {
    Halves all(values.count());
    for (int64_t k = 0; k < values.count(); ++k) all[k] = values[k] & 0x7FFF;
    return all;
}

void two_of_four_cases() {
    static const Places places([](int byte) {
        return std::vector<int>{byte & 3, byte >> 2 & 3, 4 + (byte >> 4 & 3), 4 + (byte >> 6)};
    });
    for (int i = 0; i < 60; ++i) {
        Padded a(between(1, 9), i < 20 ? 1 + i : between(1, 300), between(1, 9));
        doing = shape("2:4", a.p);
        const int64_t kept = (a.p.n + 3) / 4 * 2;
        const Halves values(a.p.m * kept, half), sizes = magnitudes(values);
        const auto pair = [] {
            const int64_t first = between(0, 3);
            return first | (first + between(1, 3)) % 4 << 2;
        };
        const Bytes index(a.p.m * ((kept + 3) / 4), [&] { return pair() | pair() << 4; });
        const auto with = [&](const Halves& from) {
            return [&](const Table& t, const Product& p) {
                in_pieces(p.m, [&](int64_t begin, int64_t end) {
                    t.two_of_four_rows(p, {from.get(), index.get(), kept, places.bytes[0]}, begin, end);
                });
            };
        };
        a.check(with(values), with(sizes));
    }
}

void bitmap_cases() {
    static const Places places([](int byte) {
        std::vector<int> columns;
        for (int i = 0; i < 8; ++i)
            if (byte >> i & 1) columns.push_back(i);
        return columns;
    });
    for (int i = 0; i < 60; ++i) {
        Padded a(between(1, 9), i < 20 ? 1 + i : between(1, 300), between(1, 4));
        doing = shape("bitmap", a.p);
        const int64_t row_bytes = (a.p.n + 7) / 8;
        const bool sparse = i % 4 == 1;
        const Bytes mask(a.p.m * row_bytes, [&] {
            return i % 4 == 0 ? 255 : sparse ? chance() & chance() & chance() : chance();
        });
        std::vector<int64_t> first;
        int64_t count = 0;
        for (int64_t row = 0; row < a.p.m; ++row) {
            first.push_back(count);
            if (a.p.n % 8) mask[(row + 1) * row_bytes - 1] &= static_cast<uint8_t>((1 << a.p.n % 8) - 1);
            for (int64_t j = 0; j < row_bytes; ++j) count += __builtin_popcount(mask[row * row_bytes + j]);
        }
        const Halves values(count, half), sizes = magnitudes(values);
        const auto with = [&](const Halves& from) {
            return [&](const Table& t, const Product& p) {
                in_pieces(p.m, [&](int64_t begin, int64_t end) {
                    t.bitmap_rows(p, {mask.get(), from.get(), count, first.data(), places.bytes[0]}, begin, end);
                });
            };
        };
        a.check(with(values), with(sizes));
    }
}

void sparse_cases() {
    for (int i = 0; i < 40; ++i) {
        Padded a(between(1, 9), between(1, 500), between(1, 4));
        doing = shape("sparse rows", a.p);
        const bool wide = i % 2;
        Guarded<int32_t> rows(a.p.m + 1);
        for (int64_t row = 0; row < a.p.m; ++row)
            rows[row + 1] = rows[row] + static_cast<int32_t>(between(0, i % 5 == 0 ? 0 : i % 5 == 1 ? 600 : 20));
        const int64_t count = rows[a.p.m];
        const auto column = [&] { return between(0, a.p.n - 1); };
        const Halves narrow_columns(wide ? 0 : count, column);
        const Guarded<int32_t> wide_columns(wide ? count : 0, column);
        const void* columns = wide ? static_cast<const void*>(wide_columns.get()) : narrow_columns.get();
        const Halves values(count, half), sizes = magnitudes(values);
        const auto with = [&](const Halves& from) {
            return [&](const Table& t, const Product& p) {
                in_pieces(p.m, [&](int64_t begin, int64_t end) {
                    t.sparse_rows(p, {rows.get(), columns, wide, from.get()}, begin, end);
                });
            };
        };
        a.check(with(values), with(sizes));
    }
}

void codebook_cases() {
    for (const int vector : {1, 3, 4, 8, 16, 20})
        for (int i = 0; i < 10; ++i) {
            Padded a(between(1, 50), i < 4 ? 1 + 3 * i : between(1, 1200), between(1, 4));
            const int bits = one_of({1, 2, 3, 4, 6, 8, 9, 11, 12}), low = std::min(bits, 8);
            doing = shape("codebook", a.p) + ", " + std::to_string(vector) + " x " + std::to_string(bits) + " bits";
            const int64_t count = (a.p.m + vector - 1) / vector;
            Codebook w{};
            w.bits = bits;
            w.vector = vector;
            w.row_bytes = (a.p.n * low + 7) / 8;
            w.high_bytes = (a.p.n * (bits - low) + 7) / 8;
            const Bytes codes = bytes(count * w.row_bytes), high = bytes(count * w.high_bytes);
            const Floats book((int64_t{1} << bits) * vector, normal);
            Floats sizes(book.count());
            for (int64_t k = 0; k < book.count(); ++k) sizes[k] = std::fabs(book[k]);
            w.codes = codes.get();
            w.high = bits > 8 ? high.get() : nullptr;
            const auto with = [&](const Floats& from) {
                return [&](const Table& t, const Product& p) {
                    Codebook of = w;
                    of.book = from.get();
                    in_pieces(count, [&](int64_t begin, int64_t end) { t.codebook_rows(p, of, begin, end); });
                };
            };
            a.check(with(book), with(sizes));
        }
}

// ---- table lookup: see lookup.cpp

void lookup_case(int planes, bool ternary, int i) {
    constexpr int64_t rows = 32;
    const int64_t m = between(1, 80), n = i < 8 ? 1 + 9 * i : between(1, 700), batch = between(1, 4);
    const int64_t tiles = (m + rows - 1) / rows, columns = (n + 7) / 8;
    const int64_t group = one_of<int64_t>({-1, 8, 24, 32, 64, 96, 128});
    Lookup w{};
    w.planes = planes;
    w.groups = group == -1 || group >= n ? 1 : (n + group - 1) / group;
    w.group = w.groups == 1 ? columns * 8 : group;
    w.scales = i % 2 ? planes : 1;
    const Bytes codes = bytes(tiles * columns * planes * rows);
    const Bytes signs = bytes(ternary ? tiles * ((n + 31) / 32) * rows : 0);
    const Halves scale(tiles * w.groups * w.scales * rows, half), offset(tiles * w.groups * rows, half);
    w.codes = codes.get();
    w.signs = ternary ? signs.get() : nullptr;
    w.scale = scale.get();
    w.offset = !ternary && i % 3 ? offset.get() : nullptr;
    doing = (ternary ? "3:4 ternary " : "bit planes ") + std::to_string(m) + "x" + std::to_string(n) + " by " +
            std::to_string(batch) + ", " + std::to_string(planes) + " planes, group " + std::to_string(w.group);
    Floats x(batch * columns * 8, normal);
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t j = n; j < columns * 8; ++j) x[b * columns * 8 + j] = 0;
    if (i % 10 == 9) x[between(0, n - 1)] = INFINITY;
    std::vector<double> bound(static_cast<size_t>(batch * m));
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t r = 0; r < m; ++r) {
            double& sum = bound[static_cast<size_t>(b * m + r)];
            for (int64_t j = 0; j < n; ++j) {
                const int64_t at = r / rows * w.groups + j / w.group;
                double worth = w.offset ? size_of(offset[at * rows + r % rows]) : 0;
                for (int k = 0; k < planes; ++k)
                    worth += w.scales == planes ? size_of(scale[(at * planes + k) * rows + r % rows])
                                                : size_of(scale[at * rows + r % rows]) * (1 << k);
                sum += std::fabs(static_cast<double>(x[b * columns * 8 + j])) * worth;
            }
            if (!std::isfinite(sum)) sum = std::numeric_limits<double>::quiet_NaN();
        }
    everywhere(bound, [&](const Table& t, float* y) {
        const int64_t block = t.lookup_block(w);
        LookupTables tables{};
        tables.blocks = (n + block - 1) / block;
        tables.table_stride = columns * 32;
        const Guarded<int8_t> table(batch * tables.table_stride, [] { return chance(); });
        const Floats worth = poisoned(batch * tables.blocks), sum = poisoned(batch * tables.blocks);
        for (int64_t b = 0; b < batch; ++b)
            t.lookup_tables(w, n, x.get() + b * columns * 8, table.get() + b * tables.table_stride,
                            worth.get() + b * tables.blocks, sum.get() + b * tables.blocks);
        tables.table = table.get();
        tables.worth = worth.get();
        tables.sum = sum.get();
        Product p{m, n, batch, nullptr, 0, y};
        for (int64_t tile = 0; tile < tiles; ++tile) t.lookup_rows(p, w, tables, tile, tile + 1);
    });
}

void lookup_cases() {
    for (int planes = 1; planes <= 4; ++planes)
        for (int i = 0; i < 20; ++i) lookup_case(planes, false, i);
    for (int i = 0; i < 40; ++i) lookup_case(1, true, i);
}

void expect(bool fine, const std::string& what) {
    if (fine) return;
    ++failures;
    std::printf("%s\n", what.c_str());
}

void dispatch_cases(const std::vector<std::string>& names) {
    std::string found, wanted;
    for (const Table* t : available()) found += std::string(" ") + t->name;
    for (const auto& name : names) wanted += " " + name;
    expect(names.empty() || found == wanted, "this machine has" + found + ", not" + wanted);
    const Table* last = available().back();
    setenv("HARNESS_KERNELS_ISA", last->name, 1);
    expect(&table() == last, "HARNESS_KERNELS_ISA is not followed");
    for (const Table* t : available())
        expect(choose_table(t->name) && &table() == t, std::string(t->name) + " is refused");
    expect(!choose_table("sse9"), "an instruction set that does not exist is accepted");
    for (const Table* t : available()) {
        const int64_t once = t->multiply(1);
        const bool counted = t->multiply(0) == 0 && once > 0 && t->multiply(3) == 3 * once;
        expect(counted, std::string(t->name) + ": multiply counts wrong");
    }
}

void say_where(int) {
    const char start[] = "memory that is not the kernel's is touched: ";
    const bool said = write(2, start, sizeof start - 1) > 0 && write(2, doing.data(), doing.size()) > 0;
    _exit(said && write(2, "\n", 1) ? 2 : 3);
}

}  // namespace

int main(int count, char** arguments) {
    signal(SIGSEGV, say_where);
    signal(SIGBUS, say_where);
    dispatch_cases({arguments + 1, arguments + count});
    uniform_cases();
    decode_cases();
    dense_cases();
    two_of_four_cases();
    bitmap_cases();
    sparse_cases();
    codebook_cases();
    lookup_cases();
    std::string names;
    for (const Table* t : available()) names += std::string(" ") + t->name;
    std::printf("%lld results compared,%s: %lld failures\n", static_cast<long long>(compared), names.c_str(),
                static_cast<long long>(failures));
    return failures || !compared;
}
