"""The plain way to a smaller Llama: the same part of every feed-forward layer's channels, then distillation."""

from __future__ import annotations

import copy

from harness import BadInput, Count, LanguageDistillProblem, Positive, Solution, Weight, method
from methods.distillation.llama_blocks import blocks_of, importance, narrower, size_of
from methods.distillation.puzzle import teacher_calls
from methods.distillation.teaching import imitate


@method(track="distill")
def uniform_width(
    problem: LanguageDistillProblem,
    *,
    calibration: Count = 32,
    hidden: Weight = 1.0,
    lr: Positive = 3e-4,
    weight_decay: Weight = 0.0,
) -> Solution:
    """The teacher with the most important part of every feed-forward layer, the same everywhere, taught as in `puzzle`.

    As many channels are kept as the problem's limit on numbers allows. Raises BadInput where that is none.
    """
    teacher = problem.teacher
    layers = {name: block for name, block in blocks_of(teacher).items() if name.endswith("mlp")}
    calls = teacher_calls(problem, layers, calibration)
    width = next(iter(layers.values())).down_proj.in_features
    each = sum(map(size_of, layers.values())) // width
    limit = size_of(teacher) if problem.parameters is None else problem.parameters
    kept = min(width, (limit - size_of(teacher)) // each + width)
    if kept < 1:
        raise BadInput(f"uniform_width: parameters={limit} numbers are not accepted; the rest of the model has more")
    student = copy.deepcopy(teacher)
    for name, block in layers.items():
        order = importance(block, calls[name]).argsort(descending=True, stable=True)
        student.set_submodule(name, narrower(block, order[:kept]))
    found = imitate(problem, student.train().requires_grad_(True), hidden, lr, weight_decay)
    found.log |= {"width": kept, "numbers": size_of(student)}
    return found
