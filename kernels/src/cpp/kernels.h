// What the kernels take, and the table of them that each instruction set fills in.
#pragma once

#include <cstdint>

namespace harness {

// Formats of `Uniform`: the number is bits per code, save for base 3, five ternary digits in a byte.
enum Format : int { kTwo = 2, kThree = 3, kFour = 4, kBase3 = 5, kEight = 8 };

// y[b, i] = sum_j scale[i, g] * (code[i, j] - zero[i, g]) * x[b, j], g = j / group.
struct Uniform {
    int format;
    bool int8;              // activations are rounded to 8 bits, one scale for each `kernel_block` columns
    int64_t m, n, batch;
    int64_t group, groups;  // columns in a group; 1 <= group
    const uint8_t* codes;
    int64_t row_bytes;
    const uint16_t* scale;  // half precision, (m, groups) or one
    int64_t scale_stride;   // groups, or 0 for one scale
    const uint8_t* zero_bits;    // integers of `zero_width` bits in one string,
    int zero_width;
    const uint16_t* zero_half;   // or half precision, or neither:
    float zero_constant;
    const float* x;
    float* y;
};

// Activations in the order in which the kernel meets them.
struct Activations {
    void* values;      // int8 or float, (batch, stride) padded with zeros to whole tiles
    int64_t stride;
    float* tile_scale; // (batch, tiles): what an int8 is worth; unused by floats
    int64_t tiles;
    float* group_sum;  // (batch, groups): sum of the (rounded) activations of each group
};

struct Table {
    const char* name;
    int64_t (*tile)(int format, bool int8);  // columns that one step covers
    int64_t (*lane)(int format, bool int8);  // consecutive columns that share an accumulator: groups are multiples
    void (*uniform_prepare)(const Uniform&, const Activations&, int64_t row);
    int64_t (*uniform_scratch)(const Uniform&, const Activations&);  // floats for each thread
    void (*uniform_rows)(const Uniform&, const Activations&, int64_t begin, int64_t end, float* scratch);
};

const Table* portable_table();
const Table* avx2_table();
const Table* avx512_table();

}  // namespace harness
