"""What others have for the work of the kernels: calls of the same shape, for the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness_kernels.gpu.registry import Case


def cublas(generator: torch.Generator, shape: Mapping[str, Any]) -> Case:
    """The product with a bfloat16 weight."""
    m, n, rows = shape["m"], shape["n"], shape.get("rows", 1)
    weight = torch.randn(m, n, generator=generator, device=generator.device).bfloat16()
    x = torch.randn(rows, n, generator=generator, device=generator.device).bfloat16()

    def run(x: Tensor, weight: Tensor, out: Tensor) -> Tensor:
        return torch.mm(x, weight.T, out=out)

    return _peer([x, weight], x.new_empty(rows, m), run, 2 * rows * m * n)


def int4pack(generator: torch.Generator, shape: Mapping[str, Any]) -> Case | None:
    """torch's own product with 4-bit codes in groups of 128; None where this torch does not have it."""
    m, n, rows = shape["m"], shape["n"], shape.get("rows", 1)
    device = generator.device
    packed = torch.randint(0, 256, (m, n // 2), dtype=torch.uint8, generator=generator, device=device)
    scales = torch.randn(n // 128, m, 2, generator=generator, device=device).bfloat16()
    x = torch.randn(rows, n, generator=generator, device=device).bfloat16()
    try:
        weight = torch.ops.aten._convert_weight_to_int4pack(packed, 8)
        torch.ops.aten._weight_int4pack_mm(x, weight, 128, scales)
    except (AttributeError, RuntimeError):
        return None

    def run(x: Tensor, weight: Tensor, scales: Tensor, out: Tensor) -> Tensor:
        return torch.ops.aten._weight_int4pack_mm(x, weight, 128, scales)

    return _peer([x, weight, scales], x.new_empty(rows, m), run, 2 * rows * m * n)


def _peer(inputs: list[Tensor], out: Tensor, run: Callable[..., object], operations: int) -> Case:
    moved = sum(t.nbytes for t in inputs) + out.nbytes
    return Case(inputs, out, run, lambda: (out, out), moved, operations)


PEERS: dict[str, Callable[[torch.Generator, Mapping[str, Any]], Case | None]] = {
    "cuBLAS bf16": cublas,
    "int4pack_mm": int4pack,
}
