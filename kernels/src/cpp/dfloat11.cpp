// DFloat11 to bfloat16: blocks of the stream are decoded apart, each from its own position.
#include "bindings.h"
#include "dispatch.h"
#include "entropy.h"
#include "threads.h"

#include <memory>

namespace harness {
namespace {

void dfloat11(Output out, Array stream, Array gaps, Array positions, Array lengths, Array rest) {
    const auto* mantissa = data<const uint8_t>(rest, "rest", kUint8, {-1});
    const auto count = static_cast<int64_t>(rest.shape(0));
    auto* values = data<uint16_t>(out, "out", kBfloat16, {count});
    const Bitstream bits{data<const uint8_t>(stream, "stream", kUint8, {-1}), static_cast<int64_t>(stream.shape(0))};
    const int64_t chunks = (bits.size + kChunkBytes - 1) / kChunkBytes;
    const int64_t blocks = (chunks + kBlockChunks - 1) / kBlockChunks, gap_bytes = (chunks * 5 + 7) / 8;
    const auto* gap = data<const uint8_t>(gaps, "gaps", kUint8, {gap_bytes});
    const auto* first = data<const int32_t>(positions, "positions", kInt32, {blocks});
    auto table = std::make_unique<HuffmanTable>();
    if (!table->build(data<const uint8_t>(lengths, "lengths", kUint8, {256})))
        fail("lengths: are those of no prefix code with codes of at most 32 bits");
    // A code is a bit at least, so that no block holds more numbers than bits.
    for (int64_t b = 0; b < blocks; ++b) {
        const int64_t end = b + 1 < blocks ? first[b + 1] : count;
        if (first[b] < 0 || first[b] > end || end - first[b] > 8 * kBlockBytes || (b == 0 && first[b] != 0))
            fail("positions: do not rise from 0 to the " + std::to_string(count) + " numbers by what a block can hold");
    }
    if (count && !blocks) fail("stream: is empty; accepted are the codes of " + std::to_string(count) + " numbers");
    if (!count) return;
    nb::gil_scoped_release release;
    constexpr int64_t room = 8 * kBlockBytes + 64;
    thread_local Buffer scratch;
    auto* space = scratch.of<uint8_t>(room * kStretches * std::max(1, threads()));
    parallel(blocks, kStretches, [&](int64_t begin, int64_t end, int worker) {
        Stretch stretches[kStretches] = {};
        for (int64_t b = begin; b < end; ++b) {
            const int64_t chunk = b * kBlockChunks, at = chunk * 5;
            const int word = gap[at / 8] | (at % 8 > 3 ? gap[at / 8 + 1] << 8 : 0);
            const int64_t size = (b + 1 < blocks ? first[b + 1] : count) - first[b];
            stretches[b - begin] = {chunk * 64 + (word >> at % 8 & 31), size, space + (worker * kStretches + b - begin) * room};
        }
        huffman_decode(*table, bits, stretches);
        for (int64_t b = begin; b < end; ++b) {
            const int64_t from = first[b], size = (b + 1 < blocks ? first[b + 1] : count) - from;
            merge_bfloat(space + (worker * kStretches + b - begin) * room, mantissa + from, size, values + from);
        }
    });
}

}  // namespace

void bind_entropy(nb::module_& m) {
    m.def("dfloat11", &dfloat11, "out"_a, "stream"_a, "gaps"_a, "positions"_a, "lengths"_a, "rest"_a);
}

}  // namespace harness
