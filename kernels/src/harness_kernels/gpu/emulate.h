// CUDA C++ on the processor, for tests: included before a kernel's source, which is then compiled as C++. A block's
// threads are fibers that run until they meet a barrier, blocks run one after the other. Shared memory is exactly what
// the launch asks for, filled with NaNs, and behind it lie bytes that no kernel may change.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>

#define HARNESS_EMULATED 1
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define KERNEL(name) static void name
#define DYNAMIC_SHARED(name) u8* const name = emulated::shared
#ifndef BFLOAT
#define BFLOAT 0
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct alignas(16) uint4 { u32 x, y, z, w; };
struct alignas(8) uint2 { u32 x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct dim3 { int x = 1, y = 1, z = 1; };

static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

constexpr size_t kStack = 64 << 10, kGuard = 256;
constexpr u8 kGuardByte = 0xA5;

struct Barrier {
    int members = 0, arrived = 0, turn = 0;
};

struct Warp {
    Barrier barrier;
    u32 sent[32][8];
};

// Copies under way. They arrive when they are waited for, not before, so that a kernel that forgets to wait reads NaNs.
struct Copies {
    struct { void* to; const void* from; int group; } queue[128];
    int count = 0, group = 0;
};

struct Fiber {
    ucontext_t context;
    Copies copies;
    u8* stack;
    const Barrier* waits = nullptr;
    int turn = 0;
    bool done = false;
};

static u8* shared;
static ucontext_t scheduler;
static Fiber* fibers;
static Warp* warps;
static Barrier block;
static int current, unfinished;

[[noreturn]] inline void die(const char* what) {
    std::fprintf(stderr, "emulated block (%d, %d), thread %d: %s\n", blockIdx.x, blockIdx.y, current, what);
    std::abort();
}

inline void meet(Barrier& barrier) {
    if (++barrier.arrived == barrier.members) {
        barrier.arrived = 0;
        ++barrier.turn;
        return;
    }
    Fiber& self = fibers[current];
    self.waits = &barrier;
    self.turn = barrier.turn;
    swapcontext(&self.context, &scheduler);
}

inline int lane() { return current % 32; }
inline Warp& warp() { return warps[current / 32]; }

// What lane `from` of the warp sends; both barriers, so that nobody sends again before all have read.
template <class T>
T exchange(T value, int from) {
    static_assert(sizeof(T) == 4);
    Warp& all = warp();
    std::memcpy(all.sent[lane()], &value, 4);
    meet(all.barrier);
    T received;
    std::memcpy(&received, all.sent[from], 4);
    meet(all.barrier);
    return received;
}

template <class... A>
struct Launch {
    void (*kernel)(A...);
    std::tuple<A...> arguments;
    static Launch* running;

    static void enter() {
        std::apply(running->kernel, running->arguments);
        fibers[current].done = true;
        --unfinished;
        swapcontext(&fibers[current].context, &scheduler);
    }

    void run_block(int threads) {
        block = Barrier{threads};
        for (int w = 0; w * 32 < threads; ++w) warps[w].barrier = Barrier{threads - w * 32 < 32 ? threads - w * 32 : 32};
        for (int t = 0; t < threads; ++t) {
            Fiber& f = fibers[t];
            f.waits = nullptr;
            f.done = false;
            f.copies.count = f.copies.group = 0;
            getcontext(&f.context);
            f.context.uc_stack.ss_sp = f.stack;
            f.context.uc_stack.ss_size = kStack;
            f.context.uc_link = &scheduler;
            makecontext(&f.context, enter, 0);
        }
        // The last warp first, and each as far as it gets: one that does not wait for the others finds nothing of theirs.
        unfinished = threads;
        while (unfinished) {
            bool moved = false;
            for (int first = (threads - 1) / 32 * 32; first >= 0; first -= 32)
                while (run_warp(first, threads)) moved = true;
            if (!moved) die("some threads wait at a barrier that the others never reach");
        }
    }

    // Let every thread of a warp that can go on do so until its next barrier; gives how many went on.
    static int run_warp(int first, int threads) {
        int ran = 0;
        for (current = first; current < first + 32 && current < threads; ++current) {
            Fiber& f = fibers[current];
            if (f.done || (f.waits && f.waits->turn == f.turn)) continue;
            f.waits = nullptr;
            threadIdx.x = current;
            swapcontext(&scheduler, &f.context);
            ++ran;
        }
        return ran;
    }
};
template <class... A>
Launch<A...>* Launch<A...>::running;

template <class T>
T argument(void* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

template <class... A, size_t... i>
void launch(void (*kernel)(A...), const int* grid, int threads, size_t shared_bytes, void** values,
            std::index_sequence<i...>) {
    Launch<A...> launched{kernel, {argument<A>(values[i])...}};
    Launch<A...>::running = &launched;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {threads, 1, 1};
    fibers = new Fiber[threads];
    for (int t = 0; t < threads; ++t) fibers[t].stack = static_cast<u8*>(std::malloc(kStack));
    warps = new Warp[(threads + 31) / 32];
    const size_t room = (shared_bytes + 15) / 16 * 16;
    shared = static_cast<u8*>(std::aligned_alloc(16, room + kGuard));
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x) {
                std::memset(shared, 0xFF, shared_bytes);
                std::memset(shared + shared_bytes, kGuardByte, room + kGuard - shared_bytes);
                launched.run_block(threads);
                for (size_t at = shared_bytes; at < room + kGuard; ++at)
                    if (shared[at] != kGuardByte) die("wrote behind its shared memory");
            }
    for (int t = 0; t < threads; ++t) std::free(fibers[t].stack);
    std::free(shared);
    delete[] fibers;
    delete[] warps;
}

template <class... A>
void launch(void (*kernel)(A...), const int* grid, int threads, size_t shared_bytes, void** values) {
    launch(kernel, grid, threads, shared_bytes, values, std::index_sequence_for<A...>{});
}

}  // namespace emulated

#define EMULATED_LAUNCHER(name)                                                                              \
    extern "C" void launch_##name(const int* grid, int threads, size_t shared_bytes, void** values) {        \
        emulated::launch(name, grid, threads, shared_bytes, values);                                         \
    }

inline void __syncthreads() { emulated::meet(emulated::block); }
inline void __syncwarp(u32 = ~0u) { emulated::meet(emulated::warp().barrier); }
template <class T>
T __shfl_xor_sync(u32, T value, int mask) { return emulated::exchange(value, emulated::lane() ^ mask); }
template <class T>
T __shfl_sync(u32, T value, int from) { return emulated::exchange(value, from); }
template <class T>
T __shfl_up_sync(u32, T value, int by) {
    const int from = emulated::lane() - by;
    return emulated::exchange(value, from < 0 ? emulated::lane() : from);
}

inline float __uint_as_float(u32 bits) { float f; std::memcpy(&f, &bits, 4); return f; }
inline u32 __float_as_uint(float f) { u32 bits; std::memcpy(&bits, &f, 4); return bits; }
inline u32 __byte_perm(u32 low, u32 high, u32 selector) {
    const u64 both = static_cast<u64>(high) << 32 | low;
    u32 picked = 0;
    for (int i = 0; i < 4; ++i) picked |= static_cast<u32>(both >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return picked;
}
inline int atomicAdd(int* at, int by) { const int before = *at; *at += by; return before; }
template <class T>
T __ldg(const T* at) { return *at; }

inline float half_to_float(u16 h) {
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    const float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                       : exponent     ? std::ldexp(1024.0f + mantissa, exponent - 25)
                                      : std::ldexp(static_cast<float>(mantissa), -24);
    return h >> 15 ? -size : size;
}

// To the nearest with `fraction` bits behind the leading one, ties to even; exponents from `smallest` on.
inline float rounded(double x, int fraction, int smallest) {
    if (x == 0 || !std::isfinite(x)) return static_cast<float>(x);
    int exponent;
    std::frexp(x, &exponent);
    const int unit = (exponent - 1 < smallest ? smallest : exponent - 1) - fraction;
    return static_cast<float>(std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit));
}

inline u16 float_to_half(float f) {
    const u16 sign = std::signbit(f) ? 0x8000 : 0;
    if (std::isnan(f)) return 0x7FFF;
    const float size = std::fabs(rounded(f, 10, -14));
    if (size >= 65536.0f) return sign | 0x7C00;
    if (size < std::ldexp(1.0f, -14)) return sign | static_cast<u16>(std::ldexp(size, 24));
    int exponent;
    const float fraction = std::frexp(size, &exponent);
    return sign | static_cast<u16>((exponent + 14) << 10 | (static_cast<int>(std::ldexp(fraction, 11)) & 1023));
}

inline u16 float_to_bfloat(float f) {
    if (std::isnan(f)) return 0x7FFF;
    const u32 bits = __float_as_uint(f);
    return static_cast<u16>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

namespace emulated {
inline float wide(u16 x) { return BFLOAT ? __uint_as_float(static_cast<u32>(x) << 16) : half_to_float(x); }
inline u16 narrow(double x) {
    return BFLOAT ? float_to_bfloat(rounded(x, 7, -126)) : float_to_half(rounded(x, 10, -14));
}
}  // namespace emulated

inline u32 fma_pair(u32 a, u32 b, u32 c) {
    u32 d = 0;
    for (int i = 0; i < 32; i += 16) {
        const double product = static_cast<double>(emulated::wide(a >> i)) * emulated::wide(b >> i);
        d |= static_cast<u32>(emulated::narrow(product + emulated::wide(c >> i))) << i;
    }
    return d;
}

// Fragments as the PTX manual lays them out: lane l has rows l / 4 and l / 4 + 8 of a, column l / 4 of b.
inline void multiply_tile(float sum[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    auto& all = emulated::warp();
    const u32 sent[6] = {a0, a1, a2, a3, b0, b1};
    std::memcpy(all.sent[emulated::lane()], sent, sizeof sent);
    emulated::meet(all.barrier);
    for (int i = 0; i < 4; ++i) {
        const int row = emulated::lane() / 4, column = emulated::lane() % 4 * 2 + i % 2;
        double total = sum[i];
        for (int k = 0; k < 16; ++k) {
            const int quad = k % 8 / 2, half = k % 2 * 16, later = k / 8;
            const u32 a = all.sent[row * 4 + quad][2 * later + i / 2], b = all.sent[column * 4 + quad][4 + later];
            total += static_cast<double>(emulated::wide(a >> half)) * emulated::wide(b >> half);
        }
        sum[i] = static_cast<float>(total);
    }
    emulated::meet(all.barrier);
}

inline void copy_async(void* to, const void* from) {
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16)
        emulated::die("copies 16 bytes at an address that is no multiple of 16");
    emulated::Copies& copies = emulated::fibers[emulated::current].copies;
    if (copies.count == 128) emulated::die("has more than 128 copies under way");
    std::memset(to, 0xFF, 16);
    copies.queue[copies.count++] = {to, from, copies.group};
}
inline void commit_copies() { ++emulated::fibers[emulated::current].copies.group; }
template <int count>
void wait_copies() {
    emulated::Copies& copies = emulated::fibers[emulated::current].copies;
    int left = 0;
    for (int i = 0; i < copies.count; ++i) {
        const auto copy = copies.queue[i];
        if (copy.group >= copies.group - count) copies.queue[left++] = copy;
        else std::memcpy(copy.to, copy.from, 16);
    }
    copies.count = left;
}
