"""The compress track: a trained model in, the same model in a smaller stored format out.

Names are loaded when first used: the track describes a problem without importing torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "harness.compress.block": ("Block",),
    "harness.compress.columns": ("Rounding", "inverse_factor", "solve_columns"),
    "harness.compress.problem": ("CompressProblem", "LayerProblem", "Solution"),
    "harness.compress.walk": ("compress_layers", "walk_blocks"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'harness.compress' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
