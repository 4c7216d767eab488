"""Tasks by specification: `{dataset: digits, train: 1000, dev: 200}`. What a data set holds decides the kind.

A task of text names a data set whose catalog entry has a `text` column and no label that is learned; any other is a
task of images.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput

if TYPE_CHECKING:
    import torch

    from harness.tasks.task import Task

TOKENS = "harness.data_synthetic:table"
"""The generator whose data set holds tokens."""
_HOME = {"harness.tasks.task": ("Batch", "Split", "Task", "cross_entropy", "evaluate", "outputs", "per_sample")}
_WHERE = {name: module for module, names in _HOME.items() for name in names}
__all__ = [*sorted(_WHERE), "describe_task", "make_task", "task_kind"]


def describe_task(spec: Any) -> dict[str, str]:
    """Content hashes of what a task reads. Raises BadInput for a field that is unknown, wrong or names nothing."""
    return _kind(spec).describe(spec)


def task_kind(spec: Any) -> str:
    """The kind of model that a task is for."""
    return str(_kind(spec).KIND)


def make_task(spec: Mapping[str, Any], generator: torch.Generator, *, model: Any = None) -> Task:
    """The task of a specification. `model`: the handle whose tokenizer or preprocessing is used, if any."""
    return _kind(spec).make(spec, generator, model=model)


def _kind(spec: Any) -> ModuleType:
    from harness import data

    if not isinstance(spec, Mapping) or not isinstance(spec.get("dataset"), str):
        raise BadInput(f"task: {spec!r} is not accepted; it takes a mapping with `dataset` and the task's fields")
    source = data.locate(spec["dataset"])
    text = source.text or source.generator == TOKENS or "tokenizer" in spec
    return importlib.import_module(f"harness.tasks.{'text' if text else 'vision'}")


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'harness.tasks' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
