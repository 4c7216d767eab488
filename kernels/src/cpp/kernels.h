// What the kernels take, and the table of them that each instruction set fills in.
#pragma once

#include <cstdint>

namespace harness {

// Formats of `Uniform`: the number is bits per code, save for base 3, five ternary digits in a byte.
enum Format : int { kTwo = 2, kThree = 3, kFour = 4, kBase3 = 5, kEight = 8 };

// y[b, i] = sum_j scale[i, g] * (code[i, j] - zero[i, g]) * x[b, j], g = j / group.
struct Uniform {
    int format;
    int planes;             // of activations rounded to 8 bits, one scale for each block of columns; 0: none, floats
    int64_t m, n, batch;
    int64_t group, groups;  // columns in a group; 1 <= group
    const uint8_t* codes;
    int64_t row_bytes;
    const uint16_t* scale;       // half precision, (m, groups) or one
    int64_t scale_stride;        // groups, or 0 for one scale
    const uint8_t* zero_bits;    // integers of `zero_width` bits in one string of `zero_bytes`,
    int zero_width;
    int64_t zero_bytes;
    const uint16_t* zero_half;   // or half precision, or neither:
    float zero_constant;
    const float* x;
    float* y;
};

// Activations in the order in which the kernel meets them.
struct Activations {
    void* values;       // int8, int16 or float, (batch * planes, stride) padded with zeros to whole tiles
    int64_t stride;     // elements
    float* tile_scale;  // (batch * planes, tiles): what an integer is worth; unused by floats
    int64_t tiles;
    float* group_sum;   // (batch, groups): sum of the (rounded) activations of each group
};

// y (batch, m) = x (batch, n) times the transposed weight. Rows of x are `x_stride` apart: n and 16 zeros at least.
struct Product {
    int64_t m, n, batch;
    const float* x;
    int64_t x_stride;
    float* y;
};

enum Float : int { kF32, kF16, kBF16 };

struct Dense {
    int type;
    const void* weight;  // (m, n)
};

// At most two of four consecutive columns: `index` is the place of each value in its group, two bits.
struct TwoOfFour {
    const uint16_t* values;  // half precision, (m, kept)
    const uint8_t* index;    // (m, kept / 4 rounded up)
    int64_t kept;
    const uint8_t* places;   // (256, 16), aligned: for each byte of `index`, the bytes of four values in eight columns
};

struct Bitmap {
    const uint8_t* mask;     // (m, ceil(n / 8))
    const uint16_t* values;  // half precision, row by row
    int64_t count;
    const int64_t* first;    // (m): where the values of each row begin
    const uint8_t* places;   // (256, 16), aligned: for each byte of the mask, the bytes of its values in eight columns
};

struct SparseRows {
    const int32_t* rows;     // (m + 1)
    const void* columns;     // uint16 or int32
    bool wide;
    const uint16_t* values;  // half precision
};

// W[r * vector + t, j] = book[index[r, j], t].
struct Codebook {
    int bits, vector;
    const uint8_t* codes;    // (rows, row_bytes): min(bits, 8) low bits of each index
    int64_t row_bytes;
    const uint8_t* high;     // (rows, high_bytes): the bits above eight, or null
    int64_t high_bytes;
    const float* book;       // (2 ** bits, vector)
};

// Rows 32 at a time, so that a byte shuffle looks all of them up in one table. For eight columns c: nibbles of four
// columns, low nibble first, codes[tile, c, plane, row].
struct Lookup {
    int planes;              // one for sparse ternary
    int64_t group, groups;   // a multiple of eight columns
    const uint8_t* codes;    // (tiles, ceil(n / 8), planes, 32)
    const uint8_t* signs;    // (tiles, ceil(n / 32), 32): a bit for each four columns; sparse ternary only
    const uint16_t* scale;   // half precision, (tiles, groups, scales, 32)
    int scales;              // planes, or one: plane k is worth 2**k of it
    const uint16_t* offset;  // half precision, (tiles, groups, 32), or null
};

struct LookupTables {
    const int8_t* table;     // (batch, table_stride): 16 bytes for each four columns
    int64_t table_stride;
    const float* worth;      // (batch, blocks): what one of them stands for
    const float* sum;        // (batch, blocks): of the activations
    int64_t blocks;
};

struct Table {
    const char* name;
    int64_t (*multiply)(int64_t rounds);  // products of 8 bits from registers, added up; gives how many there were
    int64_t (*tile)(int format, bool int8);  // columns that one step covers
    int64_t (*lane)(int format, bool int8);  // consecutive columns that share an accumulator: groups are multiples
    int64_t (*activation_bytes)(int format, bool int8);
    int (*float_planes)(const Uniform&);  // that floating activations are split into, or 0
    void (*uniform_prepare)(const Uniform&, const Activations&, int64_t row);
    int64_t (*uniform_scratch)(const Uniform&, const Activations&);  // floats for each thread
    void (*uniform_rows)(const Uniform&, const Activations&, int64_t begin, int64_t end, float* scratch);
    void (*uniform_decode)(const Uniform&, int64_t row, float* out, float* scratch);

    void (*dense_rows)(const Product&, const Dense&, int64_t begin, int64_t end);
    void (*two_of_four_rows)(const Product&, const TwoOfFour&, int64_t begin, int64_t end);
    void (*bitmap_rows)(const Product&, const Bitmap&, int64_t begin, int64_t end);
    void (*sparse_rows)(const Product&, const SparseRows&, int64_t begin, int64_t end);
    void (*codebook_rows)(const Product&, const Codebook&, int64_t begin, int64_t end);

    int64_t (*lookup_block)(const Lookup&);  // columns whose tables share a scale
    void (*lookup_tables)(const Lookup&, int64_t n, const float* x, int8_t* table, float* worth, float* sum);
    void (*lookup_rows)(const Product&, const Lookup&, const LookupTables&, int64_t begin, int64_t end);  // of 32 rows
};

const Table* portable_table();
const Table* neon_table();
const Table* dotprod_table();
const Table* avx2_table();
const Table* avx512_table();

}  // namespace harness
