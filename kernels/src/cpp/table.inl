// The kernels of one instruction set, and the most of the products that they are made of.

int64_t multiply(int64_t rounds) {
    using Int = Isa::Int<kFour>;
    constexpr int kChains = 8, kSteps = 1024;  // enough for each to wait for its own result; sums do not overflow
    // A start of its own for each chain, or the compiler would see that all are one.
    const auto* text = reinterpret_cast<const uint8_t*>(
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    const typename Isa::I x = Isa::load_codes(text);
    float sink = 0;
    for (int64_t i = 0; i < rounds; ++i) {
        typename Isa::I sum[kChains][Int::sums] = {};
        each<kChains>([&](auto c) HARNESS_INLINE { sum[c.value][0] = Isa::load_codes(text + c.value); });
        for (int step = 0; step < kSteps; ++step)
            each<kChains>([&](auto c) HARNESS_INLINE { Int::template add<0>(sum[c.value], sum[c.value][0], x); });
        each<kChains * Int::sums>([&](auto i) HARNESS_INLINE {
            sink += Isa::total(Isa::to_float(sum[i.value / Int::sums][i.value % Int::sums]));
        });
    }
    return sink == 0.5f ? 0 : rounds * kChains * kSteps * 4 * Isa::L;
}

Table filled(const char* name) {
    Table t{};
    t.name = name;
    t.multiply = multiply;
    t.tile = tile_columns;
    t.lane = lane_columns;
    t.activation_bytes = activation_bytes;
    t.float_planes = float_planes;
    t.uniform_prepare = uniform_prepare;
    t.uniform_scratch = uniform_scratch;
    t.uniform_rows = uniform_rows;
    t.uniform_decode = uniform_decode;
    t.dense_rows = dense_rows;
    t.two_of_four_rows = two_of_four_rows;
    t.bitmap_rows = bitmap_rows;
    t.sparse_rows = sparse_rows;
    t.codebook_rows = codebook_rows;
    t.lookup_block = block_columns;
    t.lookup_tables = lookup_tables;
    t.lookup_rows = lookup_rows;
    return t;
}
