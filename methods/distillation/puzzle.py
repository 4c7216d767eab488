"""Puzzle (2024): a library of cheaper blocks, each fitted on its own, and the best of them under a limit on size."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from harness import BadInput, Claim, Count, Fraction, LanguageDistillProblem, Positive, Solution, Weight, method
from harness.parts.blocks import Call, fit_block, record
from harness.parts.kd import divergences
from harness.parts.select import select
from methods.distillation.llama_blocks import blocks_of, size_of, variants
from methods.distillation.teaching import imitate

WIDTHS = (0.75, 0.5, 0.25, 0.1)
"""Of the feed-forward part; a shorter list than the paper's (0.87, 0.75, 0.5, 0.25, 0.2, 0.1)."""
ASSEMBLIES = 20
"""Random assemblies by which the additivity of scores is read."""
TRIES = 50
Library = dict[str, dict[str, nn.Module]]


@method(
    track="distill",
    paper="bercovich2024puzzle",
    claims=[
        Claim(
            "divergence_from_teacher", "uniform_width", "distill-lm",
            paper="98.4% of Llama-3.1-70B-Instruct's scores at 2.17 times its throughput",
        )
    ],
)  # fmt: skip
def puzzle(
    problem: LanguageDistillProblem,
    *,
    local: Fraction = 0.3,
    scored: Count = 8,
    calibration: Count = 32,
    hidden: Weight = 1.0,
    block_lr: Positive = 1e-3,
    lr: Positive = 3e-4,
    weight_decay: Weight = 0.0,
) -> Solution:
    """The teacher with each block replaced by a cheaper one where that costs least, then taught by the teacher.

    Stand-ins of every attention and feed-forward part learn its outputs on the teacher's own inputs (a part `local` of
    the backward passes; one through a block counts by its part of the parameters). Each is scored alone in the teacher
    by KL(teacher || model) on `scored` windows; an integer program picks one for each part under the problem's limit on
    numbers; the result is trained on KL plus `hidden` times the cosine distance of the last hidden states, without the
    labels. Raises BadInput where even the smallest stand-ins are too many numbers.
    """
    teacher, blocks = problem.teacher, blocks_of(problem.teacher)
    rest = size_of(teacher) - sum(map(size_of, blocks.values()))
    limit = size_of(teacher) if problem.parameters is None else problem.parameters
    calls = teacher_calls(problem, blocks, calibration)
    library = {name: variants(block, calls[name], WIDTHS) for name, block in blocks.items()}
    costs = [[size_of(block) for block in row.values()] for row in library.values()]
    if (least := rest + sum(map(min, costs))) > limit:
        raise BadInput(f"puzzle: parameters={limit} numbers are not accepted; the smallest assembly has {least}")
    steps = fit_library(problem, library, calls, local, block_lr)
    scores = score_library(problem, library, scored)
    chosen = select(scores, {"numbers": costs}, {"numbers": limit - rest})
    assert chosen is not None, "the smallest assembly is within the limit"
    student = assembled(teacher, library, chosen)
    found = imitate(problem, student, hidden, lr, weight_decay)
    names = {block: list(row)[at] for (block, row), at in zip(library.items(), chosen, strict=True)}
    predicted = sum(row[at] for row, at in zip(scores, chosen, strict=True))
    found.log |= {"blocks": names, "block_steps": steps, "sum_of_scores": predicted, "numbers": size_of(student)}
    found.log["additivity"] = additivity(problem, library, scores, costs, limit - rest, scored)
    return found


def teacher_calls(problem: LanguageDistillProblem, blocks: dict[str, nn.Module], windows: int) -> dict[str, list[Call]]:
    """What goes in and out of the teacher's blocks on the first training windows."""
    inputs = problem.task.train.inputs[:windows]

    def run() -> None:
        for part in inputs.split(problem.budget.batch):
            problem.targets(part)

    return record(blocks, run)


def fit_library(
    problem: LanguageDistillProblem, library: Library, calls: dict[str, list[Call]], local: float, lr: float
) -> int:
    """Fit all stand-ins but the block itself to its outputs, in place; returns the updates each had."""
    numbers, size = size_of(problem.teacher), problem.budget.batch
    trained = [
        (name, block)
        for name, row in library.items()
        for variant, block in row.items()
        if variant != "same" and size_of(block)
    ]
    whole = sum(size_of(block) for _, block in trained) / numbers
    steps = int(local * problem.budget.granted.backward / (whole * size))
    for name, block in trained:
        fit_block(block, calls[name], steps, lr=lr, generator=problem.generator)
    problem.budget.count(math.ceil(steps * size * whole))
    return steps


def score_library(problem: LanguageDistillProblem, library: Library, windows: int) -> list[list[float]]:
    """KL(teacher || teacher with one block replaced) on development windows, for every stand-in; 0 for the block."""
    inputs = problem.task.dev.inputs[:windows]
    wanted, model = problem.targets(inputs), copy.deepcopy(problem.teacher)
    scores = []
    for name, row in library.items():
        own = model.get_submodule(name)
        scores.append([0.0 if variant == "same" else _score(problem, model, name, row[variant], inputs, wanted)
                       for variant in row])  # fmt: skip
        model.set_submodule(name, own)
    return scores


@torch.no_grad()
def _score(
    problem: LanguageDistillProblem, model: nn.Module, name: str, block: nn.Module, inputs: Tensor, wanted: Tensor
) -> float:
    model.set_submodule(name, block)
    return float(divergences(problem.task.logits(model, inputs), wanted).mean())


def additivity(
    problem: LanguageDistillProblem,
    library: Library,
    scores: list[list[float]],
    costs: list[list[int]],
    limit: float,
    windows: int,
    count: int = ASSEMBLIES,
) -> dict[str, Any]:
    """Whether scores of single blocks tell what their combination costs: `sums` and `divergences` of `count` random
    assemblies within the limit, and their rank correlation (None where it is not defined).

    Read on the windows that the scores were, before any training together; it decides nothing, and its passes are no
    part of the cost. Assemblies that are too large are drawn anew, `TRIES` times as many in all.
    """
    inputs = problem.task.dev.inputs[:windows]
    found: list[tuple[float, float]] = []
    with problem.budget.free(), torch.no_grad():
        wanted = problem.targets(inputs)
        for _ in range(TRIES * count):
            chosen = [int(torch.randint(len(row), (), generator=problem.generator)) for row in scores]
            if len(found) < count and sum(row[at] for row, at in zip(costs, chosen, strict=True)) <= limit:
                model = assembled(problem.teacher, library, chosen).eval()
                true = float(divergences(problem.task.logits(model, inputs), wanted).mean())
                found.append((sum(row[at] for row, at in zip(scores, chosen, strict=True)), true))
    sums, true = ([pair[at] for pair in found] for at in range(2))
    defined = len(set(sums)) > 1 and len(set(true)) > 1
    rank = float(spearmanr(sums, true).statistic) if defined else None
    return {"sums": sums, "divergences": true, "spearman": rank}


def assembled(teacher: nn.Module, library: Library, chosen: list[int]) -> nn.Module:
    """A copy of the teacher with the chosen blocks."""
    student = copy.deepcopy(teacher)
    for (name, row), at in zip(library.items(), chosen, strict=True):
        student.set_submodule(name, copy.deepcopy(list(row.values())[at]))
    return student.train().requires_grad_(True)
