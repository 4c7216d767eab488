"""Task arithmetic: Ilharco et al., "Editing Models with Task Arithmetic" (2023)."""

from __future__ import annotations

from harness import MergeProblem, Solution, Weight, method
from harness.parts.statedict import axpy, sub


@method(track="merge", paper="ilharco2023editing", tune={"scaling": (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)})
def task_arithmetic(problem: MergeProblem, *, scaling: Weight = 0.3) -> Solution:
    """What fine-tuning added to the base is scaled and summed over the experts.

    theta0 + scaling * sum_i (theta_i - theta0), one scaling for all tasks, which the paper chooses on held-out data.
    """
    base = problem.based()
    vectors = ((scaling, sub(expert.state, base)) for expert in problem.experts)
    return Solution(model=problem.load(axpy(base, vectors)))
