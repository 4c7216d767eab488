"""A track whose problems are vectors of numbers and whose solutions are the same."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.errors import BadInput, nearest

MODELS = ("one", "two")


@dataclass
class ToyProblem:
    values: np.ndarray
    generator: np.random.Generator


@dataclass
class ToySubject:
    values: np.ndarray
    target: np.ndarray
    limit: int | None = None
    extra: dict = field(default_factory=dict)


def describe(spec):
    unknown = set(spec) - {"model", "size"}
    if unknown:
        raise BadInput(f"unknown field {min(unknown)}; known: model, size")
    if spec.get("model") not in MODELS:
        raise BadInput(f"unknown model {spec.get('model')!r}; {nearest(str(spec.get('model')), MODELS)}")
    return {"model": hashlib.sha256(spec["model"].encode()).hexdigest()}


def build(spec, *, seed):
    size = spec.get("size", 4)
    if size == 0:
        raise BadInput("toy: size is 0; it takes at least 1 row")
    return ToyProblem(np.arange(1.0, size + 1), np.random.default_rng(seed))


def solve(entry, problem, params):
    with Path(os.environ["TOY_LOG"]).open("a") as log:
        log.write(f"{entry.name} {params}\n")
    return entry(problem, **params)


def subject(problem, solution):
    return ToySubject(solution, problem.values)


def size(problem, solution):
    return {"model_bytes": int(solution.nbytes)}
