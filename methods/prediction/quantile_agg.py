"""Flexible model aggregation for quantile regression (Fakoor, Kim, Mueller, Smola and Tibshirani 2021).

Convex weights over base models, which may vary with the quantile level and with the features, are trained with pinball
loss on out-of-fold predictions; a penalty keeps the quantiles apart, and what still crosses is put in order afterwards.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from harness import Claim, Count, Fraction, Phase, Positive, Predictor, PredictProblem, Solution, Weight, method
from harness.errors import BadInput
from harness.models.small import seeded
from harness.parts.quantiles import How, conformal_widths, monotonise
from harness.tasks.task import Split, epochs
from harness.train.loop import run_phases

Granularity = Literal["coarse", "medium", "fine"]
Margin = Literal["adapt", "single", "none"]


class Aggregator(nn.Module):
    """Base predictions (n, M, m) and features (n, F) -> quantiles (n, m), by weights that add up to one (section 3).

    `coarse` has one weight a model (Eq. 9), `medium` one a model and level (Eq. 10), `fine` one for every model and
    level in, level out (Eq. 11). They are free, or a network's function of the features (`local`); either starts as
    the uniform average, by zeros (of the network's last layer, our choice).
    """

    def __init__(self, models: int, levels: int, features: int, granularity: Granularity, local: bool, dropout: float):
        super().__init__()
        self.granularity = granularity
        self.shape = {"coarse": (models, 1), "medium": (models, levels), "fine": (models * levels, levels)}[granularity]
        size = self.shape[0] * self.shape[1]
        self.free = None if local else nn.Parameter(torch.zeros(size))
        self.network: nn.Sequential | None = None
        if local:
            last = nn.Linear(64, size)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            hidden = [nn.Linear(features, 64), nn.ELU(), nn.Dropout(dropout), nn.Linear(64, 64), nn.ELU()]
            self.network = nn.Sequential(*hidden, last)

    def weights(self, features: Tensor) -> Tensor:
        """(n or 1, inputs, levels or 1), adding up to one over the inputs."""
        logits = self.free[None] if self.network is None else self.network(features)  # type: ignore[index]
        return logits.view(-1, *self.shape).softmax(dim=1)

    def forward(self, features: Tensor, base: Tensor) -> Tensor:
        weights = self.weights(features)
        if self.granularity == "fine":
            return torch.einsum("nkl,nk->nl", weights.expand(len(base), -1, -1), base.flatten(1))
        return (weights * base).sum(1)


@method(
    track="predict",
    paper="fakoor2021flexible",
    claims=[
        Claim(
            metric="pinball_loss",
            than="average",
            suite="predict-tabular",
            params={"granularity": "coarse", "local": False},
            paper="section 6: aggregation improves on the average of the base models over 34 data sets",
        )
    ],
    tune={"crossing": (0.5, 1.0, 2.0, 5.0, 10.0)},
)
def quantile_agg(
    problem: PredictProblem,
    *,
    granularity: Granularity = "fine",
    local: bool = True,
    lr: Positive = 1e-3,
    weight_decay: Weight = 1e-7,
    steps: Count = 1000,
    dropout: Fraction = 0.0,
    crossing: Weight = 1.0,
    margin: Margin = "adapt",
    monotone: How = "sort",
    conformal: bool = False,
) -> Predictor | Solution:
    """Convex weights over quantile models, trained with pinball loss and kept from crossing.

    `crossing` weighs the penalty on quantiles nearer than a margin (Eq. 15): `adapt` takes the margins from quantiles
    of the average's residuals, scaled by 0.1, `single` one of 0.01 standard deviations. `conformal` widens the
    intervals by their misses on the development rows. Adam is the released code's, with amsgrad; the batch 2^(3 +
    floor(log10 n)).
    """
    if not problem.levels:
        raise BadInput("quantile_agg predicts quantiles; it takes a problem with `bases: quantile`")
    middle, scale = problem.train.target.mean(), problem.train.target.std() + 1e-12
    features, base, target = (
        torch.as_tensor(value, dtype=torch.float32)
        for value in (
            problem.train.features,
            (problem.train.base - middle) / scale,
            (problem.train.target - middle) / scale,
        )
    )
    levels = torch.tensor(problem.levels)
    count, models, _ = base.shape
    model = seeded(
        lambda: Aggregator(models, len(levels), features.shape[1], granularity, local, dropout), problem.generator
    )
    gaps = _margins(base, target, levels, margin)
    split = Split(torch.arange(count), torch.arange(count), [str(row) for row in range(count)])

    def loss(model: nn.Module, batch, generator) -> dict[str, Tensor]:
        q = model(features[batch.rows], base[batch.rows])
        error = target[batch.rows, None] - q
        pinball = torch.maximum(levels * error, (levels - 1) * error).mean()
        return {"pinball": pinball, "crossing": crossing * crossings(q, gaps)}

    phase = Phase(
        steps=steps,
        batches=epochs(split, 2 ** (3 + int(np.log10(count))), problem.seed()),
        loss=loss,
        optimizer=lambda named: torch.optim.Adam(named.values(), lr=lr, weight_decay=weight_decay, amsgrad=True),
    )
    fitted = run_phases(model, [phase], generator=problem.generator)
    model.eval()

    def aggregate(features: np.ndarray, base: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            scaled = torch.as_tensor((base - middle) / scale, dtype=torch.float32)
            q = model(torch.as_tensor(features, dtype=torch.float32), scaled).double().numpy()
        return monotonise(middle + scale * q, monotone)

    widths = np.zeros(len(levels))
    if conformal:
        found = aggregate(problem.dev.features, problem.dev.base)
        widths = conformal_widths(found, problem.dev.target, problem.levels)

    def predict(features: np.ndarray, base: np.ndarray) -> np.ndarray:
        return monotonise(aggregate(features, base) + widths, monotone)

    curve = [{"step": row["step"], "loss": row["loss"]} for row in fitted.history[:: max(1, len(fitted.history) // 20)]]
    return Solution(model=predict, stored=model.state_dict(), log={"curve": curve})


def crossings(q: Tensor, gaps: Tensor | None) -> Tensor:
    """The penalty on quantiles (n, m) that are nearer than their margins (m, m): the mean over rows and pairs j < k of
    relu(q_j - q_k + gap_jk) (Eq. 15); zero without margins."""
    if gaps is None:
        return q.new_zeros(())
    low, high = torch.triu_indices(q.shape[1], q.shape[1], 1)
    return torch.relu(q[:, low] - q[:, high] + gaps[low, high]).mean()


def _margins(base: Tensor, target: Tensor, levels: Tensor, margin: Margin) -> Tensor | None:
    if margin == "none":
        return None
    if margin == "single":
        return torch.full((len(levels), len(levels)), 0.01)
    residuals = target - base.mean(1)[:, len(levels) // 2]
    distance = 0.1 * torch.quantile(residuals, levels)
    return (distance[None, :] - distance[:, None]).clamp(min=0)
