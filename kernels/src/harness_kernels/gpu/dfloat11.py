"""DFloat11 to bfloat16, bit for bit, any number of weights in one launch: a transformer block decodes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from harness_kernels.gpu.launch import check, launch
from harness_kernels.gpu.registry import Case, Kernel, register

CHUNK, THREADS, MOST_NUMBERS, TABLE_BYTES = 8, 512, 8 * 8 * 512, 2712
"""Bytes of a chunk, chunks of a block, numbers that a block can hold, bytes of a tensor's tables: as in dfloat11.cu."""
Stored = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class Decoder:
    """Weights that are decoded together: what the kernel needs to know of them is on their device, once.

    Each of `weights` is (stream, gaps, positions, lengths, rest), as `harness.packed.DFloat11` stores them. Raises
    ValueError for a wrong device, dtype, shape or stride.
    """

    def __init__(self, weights: Sequence[Stored]):
        self.device = _checked(weights)
        self.weights = list(weights)
        self.counts = [len(rest) for *_, rest in weights]
        rows, first, blocks = [], 0, [0]
        for stream, gaps, positions, lengths, rest in weights:
            pointers = [t.data_ptr() for t in (stream, gaps, positions, lengths, rest)]
            rows.append([*pointers, first, len(stream), len(rest)])
            first += len(rest)
            blocks.append(blocks[-1] + len(positions))
        self.blocks = blocks[-1]
        self._streams = torch.tensor(rows, dtype=torch.int64, device=self.device)
        self._first_blocks = torch.tensor(blocks, dtype=torch.int32, device=self.device)
        self._tables = torch.empty(len(rows) * TABLE_BYTES, dtype=torch.uint8, device=self.device)
        launch("dfloat11.cu", "tables", (len(rows), 1), 256, [self._streams, self._tables], shared=3 * 33 * 4)

    def decode(self, out: Tensor | None = None) -> list[Tensor]:
        """The bfloat16 numbers of each weight: parts of one tensor, of `out` if it is given. One launch."""
        y = torch.empty(sum(self.counts), dtype=torch.bfloat16, device=self.device) if out is None else out
        check(self.device, out=(y, torch.bfloat16, (sum(self.counts),)))
        launch(
            "dfloat11.cu",
            "decode",
            (self.blocks, 1),
            THREADS,
            [self._streams, self._tables, self._first_blocks, y, len(self.weights)],
            shared=MOST_NUMBERS + TABLE_BYTES + 4 * (THREADS // 32),
        )
        return list(y.split(self.counts))


def decoder(weight: Any) -> Decoder:
    """That of one `harness.packed.DFloat11`, made once and kept as long as the weight."""
    if weight not in _decoders:
        _decoders[weight] = Decoder([stored(weight)])
    return _decoders[weight]


_decoders: WeakKeyDictionary[Any, Decoder] = WeakKeyDictionary()


def _checked(weights: Sequence[Stored]) -> torch.device:
    if not weights:
        raise ValueError("weights: are none; accepted are one and more")
    check(stream=(weights[0][0], torch.uint8, None))
    device = weights[0][0].device
    for number, (stream, gaps, positions, lengths, rest) in enumerate(weights):
        chunks = -(-len(stream) // CHUNK)
        blocks = -(-chunks // THREADS)
        check(
            device,
            **{
                f"stream {number}": (stream, torch.uint8, (len(stream),)),
                f"gaps {number}": (gaps, torch.uint8, (-(-5 * chunks // 8),)),
                f"positions {number}": (positions, torch.int32, (blocks,)),
                f"lengths {number}": (lengths, torch.uint8, (256,)),
                f"rest {number}": (rest, torch.uint8, (len(rest),)),
            },
        )
    return device


def make(generator: torch.Generator, *, sizes: Sequence[int], spread: float = 1.0) -> Case:
    """Weights of normal numbers, whose exponents `spread` multiplies: wide ones need long codes.

    They are packed by the format itself, in harness.packed; those of one size are one weight, stored more than once.
    """
    from harness.packed import DFloat11

    made: dict[int, tuple[Tensor, DFloat11]] = {}
    for size in sizes:
        if size not in made:
            values = torch.randn(size, generator=generator, device=generator.device)
            numbers = (values.sign() * values.abs() ** spread).bfloat16()
            made[size] = numbers, DFloat11.pack(numbers[None])
    expected = torch.cat([made[size][0] for size in sizes])
    weights = [stored(made[size][1], copy=True) for size in sizes]

    ready: dict[int, Decoder] = {}

    def run(weights: Any, out: Tensor) -> list[Tensor]:
        if id(weights) not in ready:
            ready[id(weights)] = Decoder(weights)
        return ready[id(weights)].decode(out)

    def exact() -> tuple[Tensor, Tensor]:
        return expected.double(), torch.zeros(len(expected), dtype=torch.float64)

    moved = sum(t.nbytes for weight in weights for t in weight) + expected.nbytes
    return Case([weights], torch.empty_like(expected), run, exact, moved, 0)


def stored(weight: Any, *, copy: bool = False) -> Stored:
    """The tensors of a `harness.packed.DFloat11` in the order of `Decoder`."""
    tensors = (weight.stream, weight.gaps, weight.positions, weight.lengths, weight.rest)
    return tuple(t.clone() for t in tensors) if copy else tensors  # type: ignore[return-value]


register(
    Kernel(
        name="dfloat11 decode",
        language="CUDA",
        formats="DFloat11, any number of tensors in a launch",
        make=make,
        checks=[
            {"sizes": [777]},
            {"sizes": [1, 4099, 35]},
            {"sizes": [9001, 50000], "spread": 9.0},
        ],
        timed={"12 weights of 4096x4096": {"sizes": [4096 * 4096] * 12}},
    )
)
