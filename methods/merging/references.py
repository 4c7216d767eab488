"""What merged models are measured from: the base as it was, and every task's own expert."""

from __future__ import annotations

import torch

from harness import MergeProblem, Solution, method
from harness.parts.statedict import axpy, sub


@method(track="merge", role="reference")
def pretrained(problem: MergeProblem) -> Solution:
    """The base, with nothing merged into it."""
    return Solution(model=problem.load(problem.based()))


@method(track="merge", role="reference")
def experts(problem: MergeProblem) -> Solution:
    """Each task's own expert, all of them stored: what merging gives up."""
    kept = {expert.task: expert.state for expert in problem.experts}
    stored = {f"{task}.{name}": tensor for task, state in kept.items() for name, tensor in state.items()}
    return Solution(model=lambda task: problem.load(kept[task]), stored=stored)


@method(track="merge", role="control")
def shuffled_experts(problem: MergeProblem) -> Solution:
    """The average with each task vector's numbers in a random order: the null control of merging.

    Every tensor keeps the values, and so the norm, of what fine-tuning added, at places drawn by chance.
    """
    base, shuffled = problem.based(), []
    for expert in problem.experts:
        vector = sub(expert.state, base)
        for name, tensor in vector.items():
            order = torch.randperm(tensor.numel(), generator=problem.generator)
            vector[name] = tensor.flatten()[order].view_as(tensor)
        shuffled.append(vector)
    merged = axpy(base, [(1 / len(shuffled), vector) for vector in shuffled])
    return Solution(model=problem.load(merged))
