"""Lossless bfloat16: exponents in a Huffman code, sign and mantissa as they are (DFloat11, 2025)."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.packed.base import PackedWeight, packed, part
from harness.packed.bits import pack_bits, packed_bytes, unpack_bits

LONGEST = 32
CHUNK_BYTES, BLOCK_CHUNKS = 8, 512
"""What one thread of the paper's decoder reads, and how many of them share a start position."""


@packed("dfloat11")
@dataclass(frozen=True, eq=False, repr=False)
class DFloat11(PackedWeight):
    """A bfloat16 weight (m, n), bit for bit, in about 11 bits a number.

    `rest` (m * n) uint8 is sign and mantissa; `stream` uint8 the codes of the exponents one after the other, most
    significant bit first; `lengths` (256) uint8 the length of each exponent's canonical code, 0 where there is none.
    To decode at many places at once: `gaps`, five bits for each eight bytes of the stream, the offset of the first code
    that starts there; `positions` int32, the number that each 512 of these chunks start with.
    """

    rows: int
    columns: int
    stream: Tensor = part("codes")
    rest: Tensor = part("mantissa")
    lengths: Tensor = part("codebook")
    gaps: Tensor = part("index")
    positions: Tensor = part("index")

    @classmethod
    def pack(cls, weight: Tensor) -> DFloat11:
        """Store weight (m, n). Raises ValueError for a dtype other than bfloat16: nothing else is kept exactly."""
        if weight.ndim != 2 or weight.dtype != torch.bfloat16 or not weight.numel():
            raise ValueError(f"weight {tuple(weight.shape)} {weight.dtype} is not a bfloat16 matrix")
        words = weight.detach().cpu().contiguous().view(torch.int16).flatten().numpy().view(np.uint16)
        exponents = (words >> 7).astype(np.uint8)
        rest = (words >> 8 & 0x80 | words & 0x7F).astype(np.uint8)
        lengths = code_lengths(np.bincount(exponents, minlength=256))
        stream, starts = _encode(exponents, lengths)
        chunks = -(-len(stream) // CHUNK_BYTES)
        first = np.searchsorted(starts, np.arange(chunks) * 8 * CHUNK_BYTES)
        # A chunk behind the last code has none that starts in it.
        gaps = np.append(starts, 0)[first] - np.arange(chunks) * 8 * CHUNK_BYTES * (first < len(starts))
        tensors = {
            "stream": torch.from_numpy(stream),
            "rest": torch.from_numpy(rest),
            "lengths": torch.from_numpy(lengths.astype(np.uint8)),
            "gaps": pack_bits(torch.from_numpy(gaps), 5),
            "positions": torch.from_numpy(first[::BLOCK_CHUNKS].astype(np.int32)),
        }
        m, n = weight.shape
        return cls(m, n, **{name: tensor.to(weight.device) for name, tensor in tensors.items()})

    def __post_init__(self) -> None:
        chunks = -(-len(self.stream) // CHUNK_BYTES)
        wanted = (self.rows * self.columns, 256, packed_bytes(chunks, 5), -(-chunks // BLOCK_CHUNKS))
        found = tuple(len(t) for t in (self.rest, self.lengths, self.gaps, self.positions))
        if found != wanted:
            raise ValueError(f"rest, lengths, gaps and positions of {found} elements are not those of {wanted}")

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    def decode(self) -> Tensor:
        """The weight as it was, (m, n) bfloat16."""
        chunks = -(-len(self.stream) // CHUNK_BYTES)
        gaps = unpack_bits(self.gaps, 5, chunks).long()
        exponents = _decode(self.stream, gaps, self.lengths, self.rest.numel()).int()
        rest = self.rest.int()
        words = (rest & 0x80) << 8 | exponents << 7 | rest & 0x7F
        return words.to(torch.int16).view(torch.bfloat16).view(self.shape)

    def dequantize(self) -> Tensor:
        return self.decode().float()

    def matmul(self, x: Tensor) -> Tensor:
        return x @ self.decode().to(x.dtype).T


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """Lengths of a Huffman code of at most 32 bits for symbols that occur `counts` times; 0 where one does not occur.

    While a code is too long the counts of ever more of the rarest symbols become 1. A single symbol gets one bit.
    """
    counts = counts.astype(np.int64)
    occur = np.flatnonzero(counts)
    rarest = occur[np.argsort(counts[occur], kind="stable")]
    for flattened in range(len(occur) + 1):
        counts[rarest[:flattened]] = 1
        lengths = _huffman(counts)
        if lengths.max() <= LONGEST:
            return lengths
    raise AssertionError("a code of equal counts has eight bits")


def _huffman(counts: np.ndarray) -> np.ndarray:
    lengths = np.zeros(len(counts), np.int64)
    heap = [(int(counts[s]), int(s), [int(s)]) for s in np.flatnonzero(counts)]
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
        return lengths
    heapq.heapify(heap)
    while len(heap) > 1:
        one, two = heapq.heappop(heap), heapq.heappop(heap)
        members = one[2] + two[2]
        lengths[members] += 1
        heapq.heappush(heap, (one[0] + two[0], min(one[1], two[1]), members))
    return lengths


def canonical_codes(lengths: np.ndarray) -> np.ndarray:
    """The codes, in order of length and then of symbol, each one more than the last."""
    codes, code, last = np.zeros(256, np.uint64), 0, 0
    for symbol in sorted(np.flatnonzero(lengths), key=lambda s: (lengths[s], s)):
        code <<= int(lengths[symbol]) - last
        codes[symbol], last, code = code, int(lengths[symbol]), code + 1
    return codes


def _encode(symbols: np.ndarray, lengths: np.ndarray, piece: int = 1 << 20) -> tuple[np.ndarray, np.ndarray]:
    """(stream of bytes, the bit that each symbol's code starts at)."""
    codes, spans = canonical_codes(lengths), lengths[symbols]
    ends = np.cumsum(spans)
    bits = np.zeros(-(-int(ends[-1]) // 8) * 8, np.uint8)
    for at in range(0, len(symbols), piece):
        part_spans, part_codes = spans[at : at + piece], codes[symbols[at : at + piece]]
        place = np.arange(part_spans.sum()) - np.repeat(np.cumsum(part_spans) - part_spans, part_spans)
        left = np.repeat(part_spans, part_spans) - 1 - place
        start = int(ends[at] - spans[at])
        bits[start : start + len(place)] = np.repeat(part_codes, part_spans) >> left.astype(np.uint64) & 1
    return np.packbits(bits), ends - spans


def _decode(stream: Tensor, gaps: Tensor, lengths: Tensor, count: int) -> Tensor:
    """`count` exponents (uint8): every chunk of the stream steps through its own codes, all chunks at once.

    Raises ValueError where the stream holds fewer.
    """
    symbols, first, offset, limits = _canonical(lengths.cpu().numpy(), stream.device)
    chunk = torch.arange(len(gaps), device=stream.device) * 8 * CHUNK_BYTES
    bit, end = chunk + gaps, (chunk + 8 * CHUNK_BYTES).clamp(max=8 * len(stream))
    stream = torch.nn.functional.pad(stream, (0, 2 * CHUNK_BYTES)).long()
    found, kept = [], []
    while bool((bit < end).any()):
        at = (bit // 8).clamp(max=len(stream) - 5)
        word = sum(stream[at + k] << 32 - 8 * k for k in range(5))
        window = word >> 8 - bit % 8 & 0xFFFFFFFF
        length = torch.searchsorted(limits, window, right=True) + 1
        length = length.clamp(max=LONGEST)
        index = offset[length] + (window >> LONGEST - length) - first[length]
        found.append(symbols[index.clamp(0, len(symbols) - 1)])
        kept.append(bit < end)
        bit = bit + length
    if not found or int(sum(k.sum() for k in kept)) < count:
        raise ValueError(f"the stream ends before its {count} numbers")
    return torch.stack(found, 1)[torch.stack(kept, 1)][:count]


def _canonical(lengths: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Symbols in order of their codes; by length the first code, where its symbols begin, and what lies above it."""
    order = sorted(np.flatnonzero(lengths), key=lambda s: (lengths[s], s))
    counts = np.bincount(lengths[lengths > 0], minlength=LONGEST + 1)
    first, offset, limits, code, seen = [0], [0], [], 0, 0
    for length in range(1, LONGEST + 1):
        code <<= 1
        first.append(code)
        offset.append(seen)
        code, seen = code + int(counts[length]), seen + int(counts[length])
        limits.append(code << LONGEST - length)
    symbols = torch.tensor(np.array(order, np.uint8), device=device)
    numbers = (torch.tensor(values, dtype=torch.int64, device=device) for values in (first, offset, limits))
    return symbols, *numbers  # type: ignore[return-value]
