// The kernels of one instruction set.

Table filled(const char* name) {
    Table t{};
    t.name = name;
    t.tile = tile_columns;
    t.lane = lane_columns;
    t.activation_bytes = activation_bytes;
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
