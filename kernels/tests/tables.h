// What tables.cpp is made of: random arrays with a page behind them that nobody may touch, and comparisons.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "half.h"

namespace {

using namespace harness;

constexpr double kRoom = 1e-6;  // of the sum of the magnitudes that a result adds up
std::mt19937 chance(7);
std::string doing;
int64_t compared = 0, failures = 0;

int64_t between(int64_t low, int64_t high) { return low + static_cast<int64_t>(chance() % (high - low + 1)); }
float uniformly() { return static_cast<float>(chance()) * 0x1p-32f; }
float normal() { return (uniformly() + uniformly() + uniformly() - 1.5f) * 2; }
template <class T>
T one_of(std::initializer_list<T> all) { return all.begin()[between(0, static_cast<int64_t>(all.size()) - 1)]; }

// An array with a page behind it that nobody may touch.
template <class T>
class Guarded {
public:
    explicit Guarded(int64_t count) : count_(count) {
        const int64_t page = sysconf(_SC_PAGESIZE), bytes = count * static_cast<int64_t>(sizeof(T));
        const int64_t inside = (bytes + page - 1) / page * page;
        size_ = static_cast<size_t>(inside + page);
        memory_ = static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (memory_ == MAP_FAILED || mprotect(memory_ + inside, static_cast<size_t>(page), PROT_NONE)) {
            std::perror("mmap");
            _exit(3);
        }
        data_ = reinterpret_cast<T*>(memory_ + inside - bytes);
    }
    template <class Function>
    Guarded(int64_t count, Function f) : Guarded(count) {
        for (int64_t i = 0; i < count; ++i) data_[i] = static_cast<T>(f());
    }
    Guarded(Guarded&& other) noexcept { swap(other); }
    Guarded& operator=(Guarded&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Guarded() {
        if (memory_) munmap(memory_, size_);
    }
    T* get() const { return data_; }
    T& operator[](int64_t i) const { return data_[i]; }
    int64_t count() const { return count_; }

private:
    void swap(Guarded& other) {
        std::swap(memory_, other.memory_);
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(count_, other.count_);
    }
    char* memory_ = nullptr;
    T* data_ = nullptr;
    size_t size_ = 0;
    int64_t count_ = 0;
};
using Bytes = Guarded<uint8_t>;
using Halves = Guarded<uint16_t>;
using Floats = Guarded<float>;

Bytes bytes(int64_t count) { return {count, [] { return chance(); }}; }
Floats poisoned(int64_t count) { return {count, [] { return std::numeric_limits<float>::quiet_NaN(); }}; }
// Half precision over some orders of magnitude, now and then a denormal number or zero.
uint16_t half() {
    const int64_t exponent = between(0, 40) ? between(8, 19) : 0;
    return static_cast<uint16_t>((between(0, 3) ? 0 : 0x8000) | exponent << 10 | between(0, 1023));
}
uint16_t positive_half() { return half() & 0x7FFF; }
double size_of(uint16_t bits) { return std::fabs(half_to_float(bits)); }

void compare(const Table& t, const float* expected, const float* y, const std::vector<double>& bound) {
    for (size_t i = 0; i < bound.size(); ++i, ++compared) {
        const double off = std::fabs(static_cast<double>(y[i]) - expected[i]);
        if (std::isfinite(expected[i]) ? off <= kRoom * bound[i] + 1e-30 : !std::isfinite(y[i]) && std::isnan(bound[i]))
            continue;
        if (++failures <= 20)
            std::printf("%s, %s: result %zu is %.9g, not %.9g (magnitudes %.3g)\n", t.name, doing.c_str(), i, y[i],
                        expected[i], bound[i]);
        return;
    }
}

// What a kernel writes, by every table, against the portable one's. A bound that is not a number stands for a result
// that is none either.
void everywhere(const std::vector<double>& bound, const std::function<void(const Table&, float*)>& run) {
    const auto count = static_cast<int64_t>(bound.size());
    const Floats expected = poisoned(count);
    run(*portable_table(), expected.get());
    for (const Table* t : available()) {
        const Floats y = poisoned(count);
        run(*t, y.get());
        compare(*t, expected.get(), y.get(), bound);
    }
}

// f(begin, end) for pieces of the rows.
template <class Function>
void in_pieces(int64_t rows, Function f) {
    const int64_t piece = 4 * between(1, 4);
    for (int64_t row = 0; row < rows; row += piece) f(row, std::min(row + piece, rows));
}

// Activations for a product, with the 16 zeros after each row that kernels may read.
struct Padded {
    Product p{};
    Floats x, sizes;  // magnitudes of x

    Padded(int64_t m, int64_t n, int64_t batch) : x(batch * (n + 16), normal), sizes(batch * (n + 16)) {
        p = {m, n, batch, x.get(), n + 16, nullptr};
        for (int64_t i = 0; i < x.count(); ++i) {
            if (i % (n + 16) >= n) x[i] = 0;
            sizes[i] = std::fabs(x[i]);
        }
    }
    // run(table, product) with the bound that `magnitudes`, the same with all signs positive, gives.
    template <class Run, class Magnitudes>
    void check(Run run, Magnitudes magnitudes) {
        const auto count = static_cast<size_t>(p.m * p.batch);
        std::vector<float> all(count);
        Product of_sizes = p;
        of_sizes.x = sizes.get();
        of_sizes.y = all.data();
        magnitudes(*portable_table(), of_sizes);
        everywhere({all.begin(), all.end()}, [&](const Table& t, float* y) {
            Product of_x = p;
            of_x.y = y;
            run(t, of_x);
        });
    }
};

// For each byte the places of halves among eight columns: as formats.cpp makes them.
struct alignas(16) Places {
    uint8_t bytes[256][16];
    template <class Columns>
    explicit Places(Columns columns_of) {
        std::memset(bytes, 128, sizeof bytes);
        for (int byte = 0; byte < 256; ++byte) {
            int value = 0;
            for (const int column : columns_of(byte)) {
                bytes[byte][2 * column] = static_cast<uint8_t>(2 * value);
                bytes[byte][2 * column + 1] = static_cast<uint8_t>(2 * value++ + 1);
            }
        }
    }
};

}  // namespace
