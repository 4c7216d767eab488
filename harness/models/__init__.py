"""Models: found by name, read from safetensors, described by a table of families.

Names of the catalog are answered from its file alone; torch and transformers are imported when a model is loaded.
"""

from __future__ import annotations

import importlib
from typing import Any

from harness.models.locate import describe, names

_HOME = {
    "harness.models.handle": ("ModelHandle", "open_model"),
    "harness.models.families": ("Family", "Fold", "family_of", "register_family"),
    "harness.models.encoder": ("encode",),
    "harness.models.outliers": ("plant_outliers",),
}
_WHERE = {name: module for module, names_there in _HOME.items() for name in names_there}
__all__ = [*sorted(_WHERE), "describe", "names"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'harness.models' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
