// DFloat11: bfloat16 with Huffman-coded exponents.
#pragma once

#include <cstdint>

namespace harness {

constexpr int64_t kChunkBytes = 8, kBlockChunks = 512, kBlockBytes = kChunkBytes * kBlockChunks;

// For each window of bits the exponents whose codes lie in it whole, up to four.
struct HuffmanTable {
    static constexpr int kWindow = 12;
    struct Entry {
        uint8_t symbol[4];
        uint8_t count, bits;
    };
    Entry entries[1 << kWindow];
    // Canonical codes of each length: the first, how many, and where their symbols begin.
    uint64_t first[33];
    int count[33], offset[33];
    uint8_t symbols[256];

    // False where the lengths are no prefix code; a length of zero is a symbol that does not occur, 32 the longest.
    bool build(const uint8_t* lengths);
};

struct Bitstream {
    const uint8_t* bytes;
    int64_t size;
};

// `count` exponents from bit `bit` of the stream on, most significant bit first; zeros follow its end. `out` has room
// for three more.
struct Stretch {
    int64_t bit, count;
    uint8_t* out;
};

// Decodes several stretches side by side: each table look-up waits for the one before it in its own stretch alone.
constexpr int kStretches = 4;
void huffman_decode(const HuffmanTable& table, const Bitstream& stream, Stretch* stretches);

// Exponents and the rest (sign, seven bits of mantissa) to bfloat16.
void merge_bfloat(const uint8_t* exponent, const uint8_t* rest, int64_t count, uint16_t* out);

}  // namespace harness
