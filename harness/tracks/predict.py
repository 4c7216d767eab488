"""The predict track: out-of-fold predictions of base models in, one calibrated predictor out.

    problem:
      dataset: diabetes                 # or california-housing, wine-quality, ... ; `target` names another column
      bases: quantile                   # or mean
      levels: [0.1, 0.25, 0.5, 0.75, 0.9]
      train: 300
      dev: 60                           # held out of training, for tuning and conformal correction
      test: 80
      folds: 5

Training and development rows are drawn from the seed; the test rows are the same for every seed. A method returns a
function of (features, base predictions) that gives predictions (rows, levels), and is never shown a test row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from harness.errors import BadInput, nearest
from harness.solution import Solution
from harness.tracks import training

if TYPE_CHECKING:
    from harness.check import Check
    from harness.metrics.subject import Subject
    from harness.registry import Entry

FIELDS: dict[str, Any] = {
    "dataset": None,
    "target": None,
    "bases": "quantile",
    "levels": [0.1, 0.25, 0.5, 0.75, 0.9],
    "train": 300,
    "dev": 60,
    "test": 80,
    "folds": 5,
    "tuning": 0,
}
BASES = ("mean", "quantile")
Predictor = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(features (n, F), base predictions (n, M, levels)) -> predictions (n, levels)."""


@dataclass(frozen=True)
class Rows:
    """Rows of a table with what the bases predict for them: `base` is (n, M, levels)."""

    features: np.ndarray
    base: np.ndarray
    target: np.ndarray
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.target)


@dataclass(kw_only=True)
class PredictProblem:
    """Training rows with out-of-fold predictions, and development rows predicted by bases that saw all training rows.

    `levels` are the quantiles to predict; none, and one column, where the mean is. `fold` numbers the fold of each
    training row. Features are standardised by the training rows. `names` are the bases'.
    """

    train: Rows
    dev: Rows
    fold: np.ndarray
    levels: tuple[float, ...]
    names: tuple[str, ...]
    generator: torch.Generator
    signature: str
    held_out: Callable[[], Rows] = field(repr=False)

    def seed(self) -> int:
        """A number drawn from the generator, for what takes a seed."""
        return int(torch.randint(2**31, (), generator=self.generator))


def describe(spec: Mapping[str, Any]) -> dict[str, str]:
    """Content hash of the table. Raises BadInput for a field that is unknown or wrong."""
    from harness import data
    from harness.tasks import table

    fields = _checked(spec)
    table.target_of(fields["dataset"], fields["target"])
    return {"dataset": data.content_hash(fields["dataset"])}


def _checked(spec: Mapping[str, Any]) -> dict[str, Any]:
    from harness.tasks.task import known_fields

    fields = known_fields(dict(spec), FIELDS, "problem")
    training.check_common({"tuning": fields["tuning"]})
    if not isinstance(fields["dataset"], str):
        raise BadInput(f"problem: dataset={fields['dataset']!r} is not accepted; it takes the name of a data set")
    if fields["bases"] not in BASES:
        raise BadInput(f"problem: bases={fields['bases']!r} is not accepted; {nearest(str(fields['bases']), BASES)}")
    for name, least in (("train", 2), ("dev", 1), ("test", 1), ("folds", 2)):
        if type(fields[name]) is not int or fields[name] < least:
            raise BadInput(f"problem: {name}={fields[name]!r} is not accepted; it takes a number of at least {least}")
    levels = fields["levels"]
    numbers = isinstance(levels, list) and all(isinstance(level, float) and 0 < level < 1 for level in levels)
    if not numbers or not levels or sorted(set(levels)) != levels:
        raise BadInput(f"problem: levels={levels!r} is not accepted; it takes rising numbers between 0 and 1")
    return fields


def build(spec: Mapping[str, Any], *, seed: int) -> PredictProblem:
    """Fit the bases; which rows train, and their folds, are drawn from `seed`. Out-of-fold predictions are kept in the
    cache, where methods and tries of one seed find them."""
    from harness.cache import cached
    from harness.parts import stacking
    from harness.tasks import table

    fields = _checked(spec)
    found = table.read(fields["dataset"], fields["target"])
    generator = torch.Generator().manual_seed(seed)
    rows, test = _drawn(fields, len(found.target), generator)
    train, dev = rows[: fields["train"]], rows[fields["train"] :]
    fold = torch.randperm(len(train), generator=generator).numpy() % fields["folds"]
    levels = tuple(fields["levels"]) if fields["bases"] == "quantile" else ()
    bases = stacking.quantile_bases(levels, seed) if levels else stacking.mean_bases(seed)
    x, y = found.features, found.target

    def fitted() -> dict[str, torch.Tensor]:
        inside = stacking.out_of_fold(list(bases.values()), x[train], y[train], fold)
        outside = stacking.predictions(list(bases.values()), x[train], y[train], x[np.concatenate([dev, test])])
        return {"inside": torch.from_numpy(inside), "outside": torch.from_numpy(outside)}

    key = {
        "track": "predict",
        "spec": {k: v for k, v in fields.items() if k != "tuning"},
        "seed": seed,
        **describe(spec),
    }
    kept = {name: tensor.numpy() for name, tensor in cached(key, fitted).items()}
    mean, scale = x[train].mean(0), x[train].std(0) + 1e-12

    def part(where: np.ndarray, base: np.ndarray) -> Rows:
        return Rows((x[where] - mean) / scale, base, y[where], tuple(found.ids[row] for row in where))

    return PredictProblem(
        train=part(train, kept["inside"]),
        dev=part(dev, kept["outside"][: len(dev)]),
        fold=fold,
        levels=levels,
        names=tuple(bases),
        generator=generator,
        signature=f"{found.signature}|train:{len(train)}|bases:{fields['bases']}|test:{len(test)}",
        held_out=lambda: part(test, kept["outside"][len(dev) :]),
    )


def _drawn(fields: Mapping[str, Any], count: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(training and development rows, test rows). The test rows do not depend on the seed."""
    wanted = fields["train"] + fields["dev"]
    if wanted + fields["test"] > count:
        raise BadInput(
            f"problem: data set {fields['dataset']} has {count} rows; train, dev and test ask for "
            f"{fields['train']} + {fields['dev']} + {fields['test']}"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
    test, rest = order[: fields["test"]], order[fields["test"] :]
    return rest[torch.randperm(len(rest), generator=generator).numpy()[:wanted]], test


def solve(entry: Entry, problem: PredictProblem, params: Mapping[str, Any]) -> Solution:
    """A method returns its predictor, or a Solution with it as the model."""
    found = entry(problem, **params)
    return found if isinstance(found, Solution) else Solution(model=found, stored={})


def predicted(solution: Solution, rows: Rows, levels: tuple[float, ...]) -> np.ndarray:
    """(n, levels) predictions for rows; TypeError for a predictor that gives something else."""
    predictor = cast(Predictor, solution.model)
    found = np.asarray(predictor(rows.features, rows.base), dtype=float)
    wanted = (len(rows), max(1, len(levels)))
    if found.shape != wanted:
        raise TypeError(f"the predictor gives an array of shape {found.shape}; it should be {wanted}")
    return found


def develop(problem: PredictProblem, solution: Solution) -> float:
    """Mean pinball loss on the development rows, or the mean squared error of a prediction of the mean."""
    from harness.metrics.predict import pinball, squared

    found = predicted(solution, problem.dev, problem.levels)
    loss = pinball(found, problem.dev.target, problem.levels) if problem.levels else squared(found, problem.dev.target)
    return float(loss.mean())


def subject(problem: PredictProblem, solution: Solution) -> Subject:
    from harness.metrics.subject import Subject

    rows = problem.held_out()
    return Subject(
        None,  # type: ignore[arg-type]
        "predictor",
        extra={
            "predicted": predicted(solution, rows, problem.levels),
            "target": rows.target,
            "levels": np.array(problem.levels),
            "ids": rows.ids,
            "signature": problem.signature,
        },
    )


def size(problem: PredictProblem, solution: Solution) -> dict[str, Any]:
    return training.trained_size(solution) if solution.stored else {}


def sample() -> dict[str, Any]:
    """A problem of a second, for the contract's checks."""
    return {"dataset": "diabetes", "train": 60, "dev": 20, "test": 20, "folds": 2, "levels": [0.25, 0.5, 0.75]}


def checks() -> tuple[Check, ...]:
    return training.common_checks("predict", [sample(), {**sample(), "bases": "mean"}])
