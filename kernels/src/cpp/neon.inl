// Vectors of NEON as every 64-bit ARM processor has it.

struct Neon {
    static constexpr int L = 4;
    using F = float32x4_t;
    using I = int32x4_t;

    static F load(const float* p) { return vld1q_f32(p); }
    static void store(float* p, F v) { vst1q_f32(p, v); }
    static F broadcast(const float* p) { return vld1q_dup_f32(p); }
    static F zero_float() { return vdupq_n_f32(0); }
    static I zero() { return vdupq_n_s32(0); }
    static F mul(F a, F b) { return vmulq_f32(a, b); }
    static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
    static F greater(F a, F b) { return vmaxq_f32(a, b); }
    static F magnitude(F a) { return vabsq_f32(a); }
    static F to_float(I v) { return vcvtq_f32_s32(v); }
    static float total(F v) { return vaddvq_f32(v); }
    static F from_half(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
    static F from_bfloat(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
    static I indices(const int32_t* p) { return vld1q_s32(p); }
    static F spread(const float* p, I index) {  // as bytes: 4 index, and the three after it
        const uint32x4_t place = vmlaq_n_u32(vdupq_n_u32(0x03020100), vreinterpretq_u32_s32(index), 0x04040404);
        return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(load(p)), vreinterpretq_u8_u32(place)));
    }
    // Eight integers of `width` bits each, at most 4, of a word.
    static void split(uint32_t word, int width, float* out) {
        static const int32_t counts[4] = {0, -1, -2, -3};  // negative: to the right
        const int32x4_t low = vmulq_n_s32(vld1q_s32(counts), width), high = vsubq_s32(low, vdupq_n_s32(4 * width));
        const uint32x4_t all = vdupq_n_u32(word), mask = vdupq_n_u32((1u << width) - 1);
        store(out, vcvtq_f32_u32(vandq_u32(vshlq_u32(all, low), mask)));
        store(out + 4, vcvtq_f32_u32(vandq_u32(vshlq_u32(all, high), mask)));
    }

    static uint8x16_t bytes(I v) { return vreinterpretq_u8_s32(v); }
    static I from_bytes(uint8x16_t v) { return vreinterpretq_s32_u8(v); }
    static I load_codes(const uint8_t* p) { return from_bytes(vld1q_u8(p)); }
    template <class X>
    static I load_integers(const X* p) {
        return load_codes(reinterpret_cast<const uint8_t*>(p));
    }
    static I load_part(const uint8_t* p, int64_t count) {
        alignas(16) uint8_t part[16] = {};
        std::memcpy(part, p, static_cast<size_t>(count < 16 ? count : 16));
        return load_codes(part);
    }

    // 6 bytes to 16 codes, each in a byte. Pairs of codes are moved to the low bits of a half word, then parted.
    static I bytes_of_three(const uint8_t* p, int64_t count) {
        static const uint8_t place[16] = {0, 1, 0, 1, 1, 2, 2, 3, 3, 4, 3, 4, 4, 5, 5, 6};
        static const int16_t right[8] = {0, -6, -4, -2, 0, -6, -4, -2};
        uint8_t part[8] = {};
        if (count < 8) std::memcpy(part, p, static_cast<size_t>(count));
        const uint8x16_t stored = vcombine_u8(vld1_u8(count < 8 ? part : p), vdup_n_u8(0));
        const uint16x8_t pairs =
            vshlq_u16(vreinterpretq_u16_u8(vqtbl1q_u8(stored, vld1q_u8(place))), vld1q_s16(right));
        return vreinterpretq_s32_u16(vandq_u16(vsliq_n_u16(pairs, pairs, 5), vdupq_n_u16(0x0707)));
    }
    // 12 bytes to 4 words of eight codes.
    static I words_of_three(const uint8_t* p, int64_t count) {
        static const uint8_t place[16] = {0, 1, 2, 255, 3, 4, 5, 255, 6, 7, 8, 255, 9, 10, 11, 255};
        return from_bytes(vqtbl1q_u8(bytes(count < 16 ? load_part(p, count) : load_codes(p)), vld1q_u8(place)));
    }

    // Digits of base 3 in the two high bits of each byte, above others: 3u / 4, whose high bits are what 3u carries.
    static void digits(I w, I* q) {
        uint8x16_t u = bytes(w);
        for (int d = 0; d < 5; ++d) {
            q[d] = from_bytes(vhaddq_u8(u, vshrq_n_u8(u, 1)));
            u = vaddq_u8(u, vaddq_u8(u, u));
        }
    }

    // Products with integers: codes are bytes, below 128 save those of 8 bits, in `fields` vectors. Of each vector, the
    // two halves add up apart, so that a lane of 32 bits keeps its columns. Sums of a span are at most 8 * 15 * 127 in
    // 4 bits, less in fewer: they fit 16 bits.
    template <int Format>
    struct Int {
        static constexpr bool wide = Format == kEight;  // products of 16 bits, sums of 32
        using X = std::conditional_t<wide, int16_t, int8_t>;
        static constexpr int fields = wide ? 2 : Format == kBase3 ? 5 : Format == kThree ? 1 : 8 / Format;
        static constexpr int sums = 2;
        static constexpr float unit = 1;

        static void unpack(I w, I* q) {
            const uint8x16_t v = bytes(w);
            if constexpr (Format == kTwo) {
                const uint8x16_t mask = vdupq_n_u8(3);
                q[0] = from_bytes(vandq_u8(v, mask));
                q[1] = from_bytes(vandq_u8(vshrq_n_u8(v, 2), mask));
                q[2] = from_bytes(vandq_u8(vshrq_n_u8(v, 4), mask));
                q[3] = from_bytes(vshrq_n_u8(v, 6));
            } else if constexpr (Format == kFour) {
                q[0] = from_bytes(vandq_u8(v, vdupq_n_u8(15)));
                q[1] = from_bytes(vshrq_n_u8(v, 4));
            } else if constexpr (Format == kEight) {
                q[0] = vreinterpretq_s32_u16(vandq_u16(vreinterpretq_u16_u8(v), vdupq_n_u16(255)));
                q[1] = vreinterpretq_s32_u16(vshrq_n_u16(vreinterpretq_u16_u8(v), 8));
            } else if constexpr (Format == kBase3) {
                digits(w, q);
                for (int d = 0; d < 5; ++d) q[d] = from_bytes(vshrq_n_u8(bytes(q[d]), 6));
            } else {
                q[0] = w;
            }
        }
        template <int P>
        static void add(I* sum, I codes, I x) {
            if constexpr (wide) {
                const int16x8_t a = vreinterpretq_s16_s32(codes), b = vreinterpretq_s16_s32(x);
                sum[0] = vmlal_s16(sum[0], vget_low_s16(a), vget_low_s16(b));
                sum[1] = vmlal_high_s16(sum[1], a, b);
            } else {
                const int8x16_t a = vreinterpretq_s8_s32(codes), b = vreinterpretq_s8_s32(x);
                const int16x8_t low = vreinterpretq_s16_s32(sum[0]), high = vreinterpretq_s16_s32(sum[1]);
                sum[0] = vreinterpretq_s32_s16(vmlal_s8(low, vget_low_s8(a), vget_low_s8(b)));
                sum[1] = vreinterpretq_s32_s16(vmlal_high_s8(high, a, b));
            }
        }
        static I finish(const I* sum) {
            if constexpr (wide) return vpaddq_s32(sum[0], sum[1]);
            return vpaddq_s32(vpaddlq_s16(vreinterpretq_s16_s32(sum[0])), vpaddlq_s16(vreinterpretq_s16_s32(sum[1])));
        }
    };

    // A level is the code: bits left at their place are a fixed-point number, which one instruction converts.
    template <int Format>
    static constexpr float unit = 1;
    template <int Format>
    static constexpr float centre = 0;

    template <int At, int Bits>
    static F field(I w) {
        const uint32x4_t bits = vandq_u32(vreinterpretq_u32_s32(w), vdupq_n_u32(((1u << Bits) - 1) << At));
        if constexpr (At == 0) return vcvtq_f32_u32(bits);
        else return vcvtq_n_f32_u32(bits, At);
    }
    template <int Format, int K>
    static F level(I w) {
        return field<K * Format, Format>(w);
    }
    template <int Byte>
    static F trit(I digits) {
        return field<8 * Byte + 6, 2>(digits);
    }
};
