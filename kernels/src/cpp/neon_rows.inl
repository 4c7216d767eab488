// Sparse weights and codebooks where NEON does better than the code for any machine in rows.inl.

// Eight columns: half-precision values moved to their places by a byte shuffle, zeros between them. See rows.inl.
struct Placed {
    Neon::F low, high;
    Placed(uint8x16_t values, const uint8_t* places, int byte) {
        const float16x8_t half = vreinterpretq_f16_u8(vqtbl1q_u8(values, vld1q_u8(places + 16 * byte)));
        low = vcvt_f32_f16(vget_low_f16(half));
        high = vcvt_high_f32_f16(half);
    }
};

struct PlacedSum {
    Neon::F low = Neon::zero_float(), high = Neon::zero_float();
    void add(const Placed& value, const float* x) {
        low = Neon::fma(value.low, Neon::load(x), low);
        high = Neon::fma(value.high, Neon::load(x + 4), high);
    }
    float total() const { return Neon::total(vaddq_f32(low, high)); }
};

template <int B>
void placed_two_of_four(const Product& p, const TwoOfFour& w, int64_t row, int64_t first) {
    const uint16_t* values = w.values + row * w.kept;
    const uint8_t* index = w.index + row * ceil_div(w.kept, 4);
    PlacedSum sum[B];
    for (int64_t i = 0; i < w.kept; i += 4) {
        uint16_t last[4] = {};
        if (i + 4 > w.kept) __builtin_memcpy(last, values + i, static_cast<size_t>(w.kept - i) * sizeof *last);
        const uint16x4_t four = vld1_u16(i + 4 > w.kept ? last : values + i);
        const Placed value(vreinterpretq_u8_u16(vcombine_u16(four, four)), w.places, index[i / 4]);
        for (int b = 0; b < B; ++b) sum[b].add(value, p.x + (first + b) * p.x_stride + 2 * i);
    }
    for (int b = 0; b < B; ++b) p.y[(first + b) * p.m + row] = sum[b].total();
}

void placed_two_of_four_rows(const Product& p, const TwoOfFour& w, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
        int64_t b = 0;
        for (; b + 4 <= p.batch; b += 4) placed_two_of_four<4>(p, w, row, b);
        for (; b < p.batch; ++b) placed_two_of_four<1>(p, w, row, b);
    }
}

void placed_bitmap_rows(const Product& p, const Bitmap& w, int64_t begin, int64_t end) {
    const int64_t bytes = ceil_div(p.n, 8);
    for (int64_t row = begin; row < end; ++row) {
        const uint8_t* mask = w.mask + row * bytes;
        for (int64_t b = 0; b < p.batch; ++b) {
            const float* x = p.x + b * p.x_stride;
            int64_t at = w.first[row];
            PlacedSum sum;
            for (int64_t c = 0; c < bytes; ++c) {
                uint16_t last[8] = {};
                const uint16_t* from = w.values + at;
                if (at + 8 > w.count) {
                    __builtin_memcpy(last, from, static_cast<size_t>(w.count - at) * sizeof *from);
                    from = last;
                }
                sum.add(Placed(vreinterpretq_u8_u16(vld1q_u16(from)), w.places, mask[c]), x + 8 * c);
                at += __builtin_popcount(mask[c]);
            }
            p.y[b * p.m + row] = sum.total();
        }
    }
}

void codebook_rows_of_sixteen(const Product& p, const Codebook& w, int64_t begin, int64_t end) {
    if (w.vector == 4 * Narrow::L) return codebook_vectors<4>(p, w, begin, end);
    codebook_rows(p, w, begin, end);
}

Table filled_by_neon(const char* name) {
    Table t = filled(name);
    t.two_of_four_rows = placed_two_of_four_rows;
    t.bitmap_rows = placed_bitmap_rows;
    t.codebook_rows = codebook_rows_of_sixteen;
    return t;
}
