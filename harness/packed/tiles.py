"""Rows in tiles of 32: the order that table lookup with byte shuffles wants (T-MAC, 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

TILE = 32


def tiled(rows: Tensor) -> Tensor:
    """(m, ...) to (tiles, 32, ...), the last tile filled with zeros."""
    padding = torch.zeros(-len(rows) % TILE, *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    return torch.cat([rows, padding]).unflatten(0, (-1, TILE))


def untiled(tiles: Tensor, m: int) -> Tensor:
    """The inverse of `tiled`."""
    return tiles.flatten(0, 1)[:m].contiguous()
