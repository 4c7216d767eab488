"""DFloat11 to bfloat16, bit for bit, any number of weights in two launches: a transformer block decodes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness_kernels.gpu.launch import check, launch
from harness_kernels.gpu.registry import Case, Kernel, register

CHUNK, THREADS, MOST_NUMBERS, TABLE_BYTES = 8, 512, 8 * 8 * 512, 2712
"""Bytes of a chunk, chunks of a block, numbers that a block can hold, and bytes of a tensor's tables; of dfloat11.cu."""
Stored = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def decode(weights: Sequence[Stored], *, out: Tensor | None = None) -> list[Tensor]:
    """The bfloat16 numbers of each (stream, gaps, positions, lengths, rest), as `harness.packed.DFloat11` stores them.

    The results are parts of one tensor, `out` if it is given (all numbers, bfloat16), one behind the other. Nothing
    waits for the GPU. Raises ValueError for a wrong device, dtype, shape or stride.
    """
    device = _checked(weights)
    counts = [len(rest) for *_, rest in weights]
    y = torch.empty(sum(counts), dtype=torch.bfloat16, device=device) if out is None else out
    check(device, out=(y, torch.bfloat16, (sum(counts),)))
    parts, rows, first = list(y.split(counts)), [], [0]
    for (stream, gaps, positions, lengths, rest), part in zip(weights, parts, strict=True):
        pointers = [t.data_ptr() for t in (stream, gaps, positions, lengths, rest, part)]
        rows.append([*pointers, len(stream), len(rest)])
        first.append(first[-1] + len(positions))
    streams = _sent(torch.tensor(rows, dtype=torch.int64), device)
    blocks = _sent(torch.tensor(first, dtype=torch.int32), device)
    tables = torch.empty(len(weights) * TABLE_BYTES, dtype=torch.uint8, device=device)
    launch("dfloat11.cu", "tables", (len(weights), 1), 256, [streams, tables], shared=3 * 33 * 4)
    launch(
        "dfloat11.cu",
        "decode",
        (first[-1], 1),
        THREADS,
        [streams, tables, blocks, len(weights)],
        shared=MOST_NUMBERS + TABLE_BYTES + 4 * (THREADS // 32),
    )
    return parts


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device; from pinned memory, so that the host does not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


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

    def run(weights: Any, out: Tensor) -> list[Tensor]:
        return decode(weights, out=out)

    def exact() -> tuple[Tensor, Tensor]:
        return expected.double(), torch.zeros(len(expected), dtype=torch.float64)

    moved = sum(t.nbytes for weight in weights for t in weight) + expected.nbytes
    return Case([weights], torch.empty_like(expected), run, exact, moved, 0)


def stored(weight: Any, *, copy: bool = False) -> Stored:
    """The tensors of a `harness.packed.DFloat11` in the order of `decode`."""
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
