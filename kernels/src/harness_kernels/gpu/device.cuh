// What the kernels need of the device, and no header of CUDA's: NVRTC compiles them wherever it is installed.
// BFLOAT says what the activations are: 0 half precision, 1 bfloat16. emulate.h has the same names for the processor.
#pragma once

#ifndef BFLOAT
#define BFLOAT 0
#endif

#ifndef HARNESS_EMULATED
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define KERNEL(name) extern "C" __global__ void name
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) u8 name[]

__device__ inline float half_to_float(u16 h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

__device__ inline u16 float_to_half(float f) {
    u16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

__device__ inline u16 float_to_bfloat(float f) {
    u16 b;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(b) : "f"(f));
    return b;
}

// a * b + c of two activations' worth of numbers in a word.
__device__ inline u32 fma_pair(u32 a, u32 b, u32 c) {
    u32 d;
#if BFLOAT
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
#else
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
#endif
    return d;
}

// sum (16 x 8) += a (16 x 16) b (16 x 8), a warp's worth: mma.m16n8k16 with float32 sums.
__device__ inline void multiply_tile(float sum[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
#if BFLOAT
#define TYPES "bf16.bf16"
#else
#define TYPES "f16.f16"
#endif
    asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPES ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#undef TYPES
}

// 16 bytes from global to shared memory, without a register in between; both addresses are multiples of 16.
__device__ inline void copy_async(void* to, const void* from) {
    const u32 address = static_cast<u32>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most `count` of this thread's groups of copies are under way.
template <int count>
__device__ inline void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(count) : "memory"); }
#endif

__device__ inline float bfloat_to_float(u16 b) { return __uint_as_float(static_cast<u32>(b) << 16); }

__device__ inline float to_float(u16 x) { return BFLOAT ? bfloat_to_float(x) : half_to_float(x); }

__device__ inline u16 from_float(float x) { return BFLOAT ? float_to_bfloat(x) : float_to_half(x); }

// The sum over the lanes of a warp, in every lane.
__device__ inline float warp_sum(float x) {
    for (int step = 16; step; step /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, step);
    return x;
}

// Number `index` of the codes of `bits` bits that follow each other from the first byte on, least significant bit first.
__device__ inline u32 code_at(const u8* packed, u64 index, u32 bits) {
    const u64 bit = index * bits;
    const u8* at = packed + bit / 8;
    const u32 shift = bit % 8;
    u32 word = at[0];
    if (shift + bits > 8) word |= static_cast<u32>(at[1]) << 8;
    return word >> shift & ((1u << bits) - 1);
}

// 16 bytes of a row that may begin anywhere and end early; what lies behind its end is 0.
__device__ inline void copy_row(u8* to, const u8* from, int valid, bool aligned) {
    if (aligned && valid >= 16) {
        copy_async(to, from);
        return;
    }
    for (int i = 0; i < 16; ++i) to[i] = i < valid ? from[i] : 0;
}
