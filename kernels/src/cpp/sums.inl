// Products with rounded activations where sums of integers are cheapest in 16 bits (AVX2 has no instruction that adds
// four products up in 32). Columns that share both scales are a "unit", one tile or the two of a block. Sums of a unit
// stay in 16-bit lanes; those of four units are added up across their lanes together; scales and zero points then act on
// all units of a row in vectors. For four bits in groups of 128 that makes 73 instructions for 512 weights: 8 loads, 24
// to unpack, 16 multiplications, 12 additions, 13 to add up four sums.

// Integer sums of four units of a row, for each of P planes of activations: unpacking is shared by them.
template <int F, int SPAN, int P>
HARNESS_INLINE inline void four_units(const uint8_t* w, const Element<F, true>* x, int64_t stride, int32_t* out,
                                      int64_t out_stride) {
    using S = Shape<F, true>;
    using Int = typename Isa::template Int<F>;
    typename Isa::I unit[P][4];
    each<4>([&](auto i) HARNESS_INLINE {
        typename Isa::I partial[P][Int::sums];
        each<P * Int::sums>([&](auto k) HARNESS_INLINE { partial[k.value / Int::sums][k.value % Int::sums] = Isa::zero(); });
        each<SPAN>([&](auto k) HARNESS_INLINE {
            constexpr int t = decltype(i)::value * SPAN + decltype(k)::value;
            typename Isa::I q[S::fields];
            Int::unpack(stored<F, true, false>(w + t * S::bytes, 0), q);
            each<P * S::fields>([&](auto j) HARNESS_INLINE {
                constexpr int plane = decltype(j)::value / S::fields, field = decltype(j)::value % S::fields;
                const auto values = Isa::load_integers(x + plane * stride + t * S::tile + field * S::elements);
                Int::template add<field>(partial[plane], q[field], values);
            });
        });
        each<P>([&](auto plane) HARNESS_INLINE { unit[plane.value][i.value] = Int::together(partial[plane.value]); });
    });
    each<P>([&](auto plane) HARNESS_INLINE { Int::four_sums(unit[plane.value], out + plane.value * out_stride); });
}

// Integer sums of all units of a row of `bytes`, and of the padding after them, for each plane.
template <int F, int SPAN, int P>
void unit_sums(const uint8_t* w, int64_t bytes, const Element<F, true>* x, int64_t stride, int64_t units, int32_t* out,
               int64_t out_stride) {
    using S = Shape<F, true>;
    constexpr int64_t step = 4 * SPAN * S::bytes, columns = 4 * SPAN * S::tile;
    constexpr int64_t beyond = F == kThree ? 4 : 0;  // bytes that are read after a tile, to be there
    const int64_t whole = bytes > beyond ? (bytes - beyond) / step : 0;
    int64_t i = 0;
    for (; i < whole; ++i) {
        const uint8_t* at = w + i * step;
        for (int64_t k = 0; k < step; k += 64) fetch_once(at + kAhead + k);
        four_units<F, SPAN, P>(at, x + i * columns, stride, out + 4 * i, out_stride);
    }
    for (; 4 * i < units; ++i) {
        alignas(64) uint8_t part[step + 32] = {};
        const int64_t left = bytes - i * step;
        if (left > 0) __builtin_memcpy(part, w + i * step, static_cast<size_t>(least(left, step)));
        four_units<F, SPAN, P>(part, x + i * columns, stride, out + 4 * i, out_stride);
    }
}

// What scales and zero points need, padded with zeros to whole vectors: for each of R rows of the weight...
template <int R>
struct RowFactors {
    float *scale[R], *zero[R], *unit[R];  // (groups), (groups), (units): scales again
    int32_t* sums[R];                     // (planes of one row of activations, units)
};

// Where the zero points of a weight are: one for all, integers of as many bits as the codes, half precision.
enum class Zeros { one, bits, half };

// Eight of them, from number `at` on, a multiple of eight.
template <int F, Zeros Z, class V = Isa>
HARNESS_INLINE inline typename V::F eight_zeros(const Uniform& u, int64_t at) {
    if constexpr (Z == Zeros::half) return V::from_half(u.zero_half + at);
    else if constexpr (Z == Zeros::bits) return V::template eight_integers<F>(u.zero_bits + at / 8 * F);
    else return V::broadcast(&u.zero_constant);
}

// Sums of neighbours: of those of `low`, then of those of `high`.
template <class V = Isa>
HARNESS_INLINE inline typename V::F pairs(typename V::F low, typename V::F high) {
    return V::pairs(low, high);
}

// Products of R rows, of which `count` are there, by row `b` of the activations from the sums of their units, where a
// group is one unit or two and the groups of a row are whole vectors: scales and zero points are read as they are stored.
template <int F, int P, int R, int UNITS, Zeros Z>
void finish_groups(const Uniform& u, int64_t row, int count, int32_t* const* sums, int64_t b, const float* step,
                   const float* offset) {
    const int64_t units = UNITS * u.groups;
    typename Isa::F total[R];
    int64_t first[R];
    each<R>([&](auto r) HARNESS_INLINE {
        total[r.value] = Isa::zero_float();
        first[r.value] = (row + (r.value < count ? r.value : 0)) * u.groups;
    });
    for (int64_t g = 0; g < u.groups; g += Isa::L) {
        typename Isa::F worth[P][UNITS];
        each<P * UNITS>([&](auto k) HARNESS_INLINE {
            constexpr int p = k.value / UNITS, unit = k.value % UNITS;
            worth[p][unit] = Isa::load(step + (b * P + p) * units + UNITS * g + unit * Isa::L);
        });
        const auto sum = Isa::load(offset + b * u.groups + g);
        each<R>([&](auto r) HARNESS_INLINE {
            const int64_t at = first[r.value] + g;
            typename Isa::F value[UNITS];
            each<P * UNITS>([&](auto k) HARNESS_INLINE {
                constexpr int p = k.value / UNITS, unit = k.value % UNITS;
                const int32_t* from = sums[r.value] + p * units + UNITS * g + unit * Isa::L;
                const auto integers = Isa::to_float(Isa::indices(from));
                value[unit] = p ? Isa::fma(integers, worth[p][unit], value[unit]) : Isa::mul(integers, worth[p][unit]);
            });
            const auto zero = eight_zeros<F, Z>(u, at);
            const auto all = Isa::fma(zero, sum, UNITS == 1 ? value[0] : pairs(value[0], value[UNITS - 1]));
            total[r.value] = Isa::fma(Isa::from_half(u.scale + at), all, total[r.value]);
        });
    }
    float y[R];
    each<R>([&](auto r) HARNESS_INLINE { y[r.value] = Isa::total(total[r.value]); });
    for (int r = 0; r < count; ++r) u.y[b * u.m + row + r] = y[r];
}

// The same where a row is one group: its scale and zero point act on the sum of all its units.
template <int P, int R>
void finish_row(const Uniform& u, int64_t row, int count, const RowFactors<R>& f, int64_t units, int64_t b,
                const float* step, float offset) {
    typename Isa::F total[R];
    each<R>([&](auto r) HARNESS_INLINE { total[r.value] = Isa::zero_float(); });
    for (int64_t i = 0; i < P * units; i += Isa::L) {
        const auto worth = Isa::load(step + b * P * units + i);
        each<R>([&](auto r) HARNESS_INLINE {
            total[r.value] = Isa::fma(Isa::to_float(Isa::indices(f.sums[r.value] + i)), worth, total[r.value]);
        });
    }
    float y[R];
    each<R>([&](auto r) HARNESS_INLINE { y[r.value] = Isa::total(total[r.value]); });
    for (int r = 0; r < count; ++r) u.y[b * u.m + row + r] = *f.scale[r] * (y[r] + *f.zero[r] * offset);
}

// R rows of the weight, of which `count` are there, by all rows of activations. `step` is what an integer of
// each unit is worth in each plane, `offset` minus the sum of the activations of each group in each row of them.
template <int F, int SPAN, int P, int R>
void sum_block(const Uniform& u, const Activations& a, int64_t row, int count, const RowFactors<R>& f, int64_t per_group,
               const float* step, const float* offset) {
    constexpr int L = Isa::L;
    const int64_t units = ceil_div(a.tiles, SPAN), padded = ceil_div(units, L) * L, room = ceil_div(u.groups, L) * L;
    const bool direct = per_group <= 2 && u.groups > 1 && u.groups % L == 0 && u.scale_stride;
    for (int r = 0; r < count && !direct; ++r) {
        scales_of(u, row + r, f.scale[r]);
        zeros_of(u, row + r, f.zero[r]);
        if (f.unit[r] == f.scale[r] || u.groups == 1) continue;
        for (int64_t g = 0, i = 0; i < units; ++g)
            for (const int64_t last = least((g + 1) * per_group, units); i < last; ++i) f.unit[r][i] = f.scale[r][g];
    }
    for (int64_t b = 0; b < u.batch; ++b) {
        const auto* x = static_cast<const Element<F, true>*>(a.values) + b * P * a.stride;
        for (int r = 0; r < count; ++r)
            unit_sums<F, SPAN, P>(u.codes + (row + r) * u.row_bytes, u.row_bytes, x, a.stride, units, f.sums[r], padded);
        if (direct) {
            const auto finish = [&]<Zeros Z>() {
                if (per_group == 1) finish_groups<F, P, R, 1, Z>(u, row, count, f.sums, b, step, offset);
                else finish_groups<F, P, R, 2, Z>(u, row, count, f.sums, b, step, offset);
            };
            if (u.zero_half) finish.template operator()<Zeros::half>();
            else if (u.zero_bits) finish.template operator()<Zeros::bits>();
            else finish.template operator()<Zeros::one>();
            continue;
        }
        if (u.groups == 1) {
            finish_row<P, R>(u, row, count, f, padded, b, step, offset[b * room]);
            continue;
        }
        typename Isa::F total[R];
        each<R>([&](auto r) HARNESS_INLINE { total[r.value] = Isa::zero_float(); });
        for (int plane = 0; plane < P; ++plane)
            for (int64_t i = 0; i < padded; i += L) {
                const auto worth = Isa::load(step + (b * P + plane) * padded + i);
                each<R>([&](auto r) HARNESS_INLINE {
                    const auto integers = Isa::indices(f.sums[r.value] + plane * padded + i);
                    const auto sum = Isa::mul(Isa::to_float(integers), worth);
                    total[r.value] = Isa::fma(sum, Isa::load(f.unit[r.value] + i), total[r.value]);
                });
            }
        for (int64_t g = 0; g < room; g += L) {
            const auto sum = Isa::load(offset + b * room + g);
            each<R>([&](auto r) HARNESS_INLINE {
                const auto zero = Isa::mul(Isa::load(f.zero[r.value] + g), Isa::load(f.scale[r.value] + g));
                total[r.value] = Isa::fma(zero, sum, total[r.value]);
            });
        }
        float y[R];
        each<R>([&](auto r) HARNESS_INLINE { y[r.value] = Isa::total(total[r.value]); });
        for (int r = 0; r < count; ++r) u.y[b * u.m + row + r] = y[r];
    }
}

constexpr int kSumRows = 4;  // so many sums at once that none waits for another

template <int F, int SPAN, int P>
void sum_rows(const Uniform& u, const Activations& a, int64_t begin, int64_t end, float* scratch) {
    using S = Shape<F, true>;
    constexpr int L = Isa::L, R = kSumRows;
    const int64_t units = ceil_div(a.tiles, SPAN), padded = ceil_div(units, L) * L, room = ceil_div(u.groups, L) * L;
    const int64_t per_group = u.groups == 1 ? units : u.group / (SPAN * S::tile), row_space = 2 * room + (1 + P) * padded;
    float *step = scratch + R * row_space, *offset = step + u.batch * P * padded;
    for (float* at = scratch; at < offset + u.batch * room; ++at) *at = 0;
    RowFactors<R> f;
    for (int r = 0; r < R; ++r) {
        f.scale[r] = scratch + r * row_space;
        f.zero[r] = f.scale[r] + room;
        f.unit[r] = per_group == 1 ? f.scale[r] : f.zero[r] + room;
        f.sums[r] = reinterpret_cast<int32_t*>(f.zero[r] + room + padded);
    }
    for (int64_t b = 0; b < u.batch * P; ++b)
        for (int64_t i = 0; i < units; ++i)
            step[b * padded + i] = a.tile_scale[b * a.tiles + i * SPAN / S::span] * S::unit;
    for (int64_t b = 0; b < u.batch; ++b)
        for (int64_t g = 0; g < u.groups; ++g) offset[b * room + g] = -a.group_sum[b * u.groups + g];
    for (int64_t row = begin; row < end; row += R)
        sum_block<F, SPAN, P, R>(u, a, row, static_cast<int>(least(R, end - row)), f, per_group, step, offset);
}
