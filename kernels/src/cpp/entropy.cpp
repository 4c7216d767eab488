#include "entropy.h"

#include <cstring>

namespace harness {
namespace {

// 64 bits from `bit` on, of which 57 are sure to be right.
inline uint64_t window(const Bitstream& s, int64_t bit) {
    const int64_t at = bit / 8;
    uint64_t word = 0;
    if (at + 8 <= s.size) {
        std::memcpy(&word, s.bytes + at, 8);
        word = __builtin_bswap64(word);
    } else {
        for (int64_t k = 0; k < 8; ++k) word = word << 8 | (at + k < s.size ? s.bytes[at + k] : 0);
    }
    return word << bit % 8;
}

// The symbol of a code of any length, by comparing with the first of each length. Gives its length, 0 for none.
int long_code(const HuffmanTable& t, uint64_t bits, uint8_t* symbol) {
    for (int length = 1; length <= 32; ++length) {
        const uint64_t code = bits >> (64 - length);
        if (t.count[length] && code >= t.first[length] && code - t.first[length] < static_cast<uint64_t>(t.count[length])) {
            *symbol = t.symbols[t.offset[length] + static_cast<int>(code - t.first[length])];
            return length;
        }
    }
    return 0;
}

// The code at the stretch's bit, of any length.
void one_code(const HuffmanTable& t, const Bitstream& stream, Stretch& s) {
    uint8_t symbol = 0;
    const int length = long_code(t, window(stream, s.bit), &symbol);
    *s.out++ = symbol;
    --s.count;
    s.bit += length ? length : 1;  // no code: the stream is damaged, and its numbers are too
}

// What one window holds, near the end of a stretch or of the stream.
void some_codes(const HuffmanTable& t, const Bitstream& stream, Stretch& s) {
    const HuffmanTable::Entry& e = t.entries[window(stream, s.bit) >> (64 - HuffmanTable::kWindow)];
    if (e.count == 0) return one_code(t, stream, s);
    std::memcpy(s.out, e.symbol, 4);
    s.out += e.count;
    s.count -= e.count;
    s.bit += e.bits;
}

}  // namespace

bool HuffmanTable::build(const uint8_t* lengths) {
    int at = 0;
    uint64_t code = 0;
    for (int length = 1; length <= 32; ++length) {
        code <<= 1;
        first[length] = code;
        offset[length] = at;
        for (int s = 0; s < 256; ++s)
            if (lengths[s] == length) symbols[at++] = static_cast<uint8_t>(s);
        count[length] = at - offset[length];
        code += static_cast<uint64_t>(count[length]);
        if (code > 1ull << length) return false;
    }
    for (int s = 0; s < 256; ++s)
        if (lengths[s] > 32) return false;
    for (int w = 0; w < 1 << kWindow; ++w) {
        Entry& e = entries[w];
        e = {};
        while (e.count < 4) {
            uint8_t symbol = 0;
            const uint64_t rest = e.bits < kWindow ? static_cast<uint64_t>(w) << (64 - kWindow + e.bits) : 0;
            const int length = long_code(*this, rest, &symbol);
            if (!length || e.bits + length > kWindow) break;
            e.symbol[e.count++] = symbol;
            e.bits = static_cast<uint8_t>(e.bits + length);
        }
    }
    return true;
}

void huffman_decode(const HuffmanTable& t, const Bitstream& stream, Stretch* s) {
    // Without a test between: while no stretch can end in four windows, and none reads beyond the stream.
    const auto far = [&](const Stretch& one) { return one.count >= 16 && one.bit / 8 + 8 <= stream.size; };
    while (far(s[0]) && far(s[1]) && far(s[2]) && far(s[3])) {
        uint64_t bits[kStretches];
        for (int i = 0; i < kStretches; ++i) bits[i] = window(stream, s[i].bit);
        // Four windows at most fit the 57 bits that one read gives.
        for (int k = 0; k < 4; ++k)
            for (int i = 0; i < kStretches; ++i) {
                const HuffmanTable::Entry& e = t.entries[bits[i] >> (64 - HuffmanTable::kWindow)];
                std::memcpy(s[i].out, e.symbol, 4);
                s[i].out += e.count;
                s[i].count -= e.count;
                s[i].bit += e.bits;
                bits[i] <<= e.bits;
            }
        for (int i = 0; i < kStretches; ++i)
            if (t.entries[bits[i] >> (64 - HuffmanTable::kWindow)].count == 0) one_code(t, stream, s[i]);
    }
    for (int i = 0; i < kStretches; ++i)
        while (s[i].count > 0) some_codes(t, stream, s[i]);
}

void merge_bfloat(const uint8_t* exponent, const uint8_t* rest, int64_t count, uint16_t* out) {
    for (int64_t i = 0; i < count; ++i)
        out[i] = static_cast<uint16_t>((rest[i] & 0x80) << 8 | exponent[i] << 7 | (rest[i] & 0x7F));
}

}  // namespace harness
