"""OPCM: Tang et al., "Merging Models on the Fly Without Retraining: A Sequential Approach to Scalable Continual Model
Merging" (2025)."""

from __future__ import annotations

from harness import Claim, Fraction, MergeProblem, Solution, method
from harness.parts.singular import project_out, split_rank, svd
from harness.parts.statedict import State, axpy, global_norm, linear_weights, sub


@method(
    track="merge",
    paper="tang2025opcm",
    tune={"alpha": (0.1, 0.3, 0.5, 0.7, 0.9)},
    claims=[
        Claim(
            metric="accuracy",
            than="opcm(project=False)",
            suite="merge-vision",
            params={"project": True},
            paper="5 to 8% over continual merging baselines on CLIP-ViT, abstract",
        )
    ],
)
def opcm(problem: MergeProblem, *, alpha: Fraction = 0.5, project: bool = True) -> Solution:
    """Experts are added one after the other, each without what it has in the directions that are already taken.

    Of the new expert's change to a linear layer, the part that lies in the leading singular block of the merged change
    (singular values up to the part `alpha` of their sum), and the diagonal of it, is projected out; all other tensors
    are added as they are. The sum is then shrunk so that its norm, over all parameters, is the mean norm of the
    experts', which the next step undoes first. Memory does not grow with the experts. `project=False` is the ablation:
    the same recursion without the projection. With `alpha=1` there is no block and only the diagonal goes.
    """
    start, linear = problem.based(), linear_weights(problem.model)
    merged: State = {}
    norms, shrink, shrinks = [], 1.0, []
    for expert in problem.experts:
        change = sub(expert.state, start)
        norms.append(global_norm(change))
        if not merged:
            merged = change
            continue
        if project:
            for name in linear & change.keys():
                basis = svd(merged[name], full=True)
                change[name] = project_out(change[name], basis, split_rank(basis.S, alpha)).float()
        total = {name: shrink * merged[name] + change[name] for name in change}
        shrink = global_norm(total) / (sum(norms) / len(norms))
        if shrink > 0:
            merged = {name: tensor / shrink for name, tensor in total.items()}
        shrinks.append(shrink)
    log = {"norms": norms, "shrinks": shrinks, "norm": global_norm(merged)}
    return Solution(model=problem.load(axpy(start, [(1.0, merged)])), log=log)
