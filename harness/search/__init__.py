"""Spaces of architectures by name: `cells(channels=8)` names a space, made for a task.

A space's builder takes the task and the space's own parameters, as builders of models do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput, nearest

if TYPE_CHECKING:
    from harness.search.space import Space
    from harness.tasks import Task

SPACES = {"cells": "vision", "convs": "vision", "llamas": "causal-lm"}
"""Name, which is also the module's and its builder's -> the kind of task it is for."""


def describe_space(text: Any, kind: str) -> None:
    """BadInput for an expression that names no space, or none for that kind of task, or a wrong parameter."""
    _bound(text, kind)


def make_space(text: str, task: Task) -> Space:
    """The space of an expression for a task."""
    builder, values = _bound(text, task.kind)
    return builder(task, **values)


def _bound(text: Any, kind: str) -> tuple[Any, dict[str, Any]]:
    from harness.params import bind, complete, parse_expression, signature_params

    if not isinstance(text, str):
        raise BadInput(f"problem: model={text!r} is not accepted; it takes the name of a space of architectures")
    expression = parse_expression(text)
    if expression.name not in SPACES:
        raise BadInput(f"unknown space {expression.name!r}; {nearest(expression.name, SPACES)}")
    if SPACES[expression.name] != kind:
        fitting = [name for name, its in SPACES.items() if its == kind]
        raise BadInput(
            f"space {expression.name} is for tasks of kind {SPACES[expression.name]}; this one is {kind}; "
            f"known: {', '.join(fitting)}"
        )
    builder = getattr(importlib.import_module(f"harness.search.{expression.name}"), expression.name)
    params = signature_params(builder, expression.name)
    points = list(bind(expression, params, expression.name))
    if len(points) != 1:
        raise BadInput(f"space {text!r} is a grid of {len(points)}; name one space")
    return builder, complete(points[0], params)
