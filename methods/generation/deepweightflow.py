"""DeepWeightFlow: Gupta et al., "DeepWeightFlow: Re-Basined Flow Matching for Generating Neural Network Weights"
(2026)."""

from __future__ import annotations

import torch
from torch import Tensor

from harness import Claim, Count, GenerateProblem, Phase, Positive, Solution, Weight, method
from harness.models.small import seeded
from harness.parts.batchnorm import has_batchnorm
from harness.parts.flow import Rule, VelocityField, integrate, matching_loss
from harness.parts.statedict import Layout, State, with_floats
from harness.parts.zoo import Coordinates, canonical
from harness.train import optimizers
from harness.train.loop import run_phases
from harness.train.schedules import cosine
from methods.generation.copies import solution_of

LEAST_RATE = 1e-6
"""Where the cosine ends."""


def coordinates(problem: GenerateProblem, components: int, align: bool) -> tuple[Layout, Coordinates, Tensor]:
    """The zoo as points (N, k) in its principal coordinates, its units matched first if `align`."""
    states = canonical(problem.model, problem.zoo, problem.zoo[0], problem.generator) if align else problem.zoo
    layout = Layout.of(problem.zoo[0], [name for name, _ in problem.model.named_parameters()])
    vectors = torch.stack([layout.flatten(state) for state in states])
    found = Coordinates.of(vectors, components)
    return layout, found, found.encode(vectors)


def networks(problem: GenerateProblem, layout: Layout, vectors: Tensor) -> list[State]:
    """Flat vectors (N, D) as networks."""
    return [with_floats(problem.zoo[0], layout.unflatten(vector)) for vector in vectors]


@method(
    track="generate",
    paper="gupta2026deepweightflow",
    claims=[
        Claim(
            metric="generated_accuracy",
            than="deepweightflow(align=False)",
            suite="generate-weights",
            params={"align": True},
            paper="matching the zoo first accounts for permutation symmetries and makes generation better, abstract",
        ),
        Claim(
            metric="generated_accuracy",
            than="shuffled_weights",
            suite="generate-weights",
            params={"align": True},
            paper="complete networks that work without fine-tuning, abstract",
        ),
    ],
)
def deepweightflow(
    problem: GenerateProblem,
    *,
    lr: Positive = 5e-4,
    weight_decay: Weight = 1e-5,
    width: Count = 512,
    components: Count = 99,
    source: Positive = 0.01,
    jitter: Weight = 1e-3,
    steps: Count = 100,
    rule: Rule = "rk4",
    align: bool = True,
) -> Solution:
    """The zoo is matched to its first network, cut to principal coordinates, and a flow from tiny noise is learned.

    x0 ~ N(0, source^2), x_t = (1 - t) x0 + t x1 + jitter * N(0, 1), || v(x_t, t) - (x1 - x0) ||^2; AdamW with betas
    (0.9, 0.95) and a cosine to 1e-6 over the budget's steps; samples by `steps` steps of the `rule`, put back into
    weights. With k = N - 1 coordinates the zoo is represented exactly, and the flow mostly copies it: read `novelty`.
    Deviations: the weights at the end of the cosine are used, where the released code keeps those of the lowest batch
    loss; `rk4` evaluates its stages at t, t + h / 2 and t + h. Stored are the flow, the basis and the mean.
    """
    layout, space, points = coordinates(problem, components, align)
    flow = seeded(lambda: VelocityField(points.shape[1], width), problem.generator)
    size, seed = problem.budget.batch, problem.seed()
    reserve = problem.count * len(problem.task.train) if has_batchnorm(problem.model) else 0
    updates = min(problem.budget.steps(), (problem.budget.granted.forward - reserve) // size)

    def batches(index: int) -> Tensor:
        rows = torch.randint(len(points), (size,), generator=torch.Generator().manual_seed(seed * 100_003 + index))
        return points[rows]

    phase = Phase(
        steps=updates,
        batches=batches,
        loss=lambda field, x1, generator: matching_loss(field, x1, generator, scale=source, noise=jitter),
        optimizer=optimizers.adamw(lr, weight_decay, (0.9, 0.95)),
        schedule=cosine(end=LEAST_RATE / lr),
    )
    file = problem.folder / "flow.pt" if problem.folder else None
    fitted = run_phases(
        flow, [phase], generator=problem.generator, meter=problem.budget, log_every=max(1, updates // 20),
        checkpoint=file, checkpoint_seconds=20.0,
    )  # fmt: skip
    flow.eval()
    x0 = source * torch.randn(problem.count, points.shape[1], generator=problem.generator)
    nets = networks(problem, layout, space.decode(integrate(flow, x0, steps, rule)))
    stored = {f"flow.{name}": tensor for name, tensor in flow.state_dict().items()}
    stored |= {"mean": space.mean, "basis": space.basis}
    curve = [{key: row[key] for key in ("step", "loss")} for row in fitted.history]
    return solution_of(problem, nets, stored, curve=curve)


@method(track="generate")
def gaussian(problem: GenerateProblem, *, components: Count = 99, align: bool = True) -> Solution:
    """A Gaussian fitted to the zoo in its principal coordinates, of which networks are drawn."""
    layout, space, points = coordinates(problem, components, align)
    drawn = torch.randn(problem.count, points.shape[1], generator=problem.generator) * space.deviations
    nets = networks(problem, layout, space.decode(drawn))
    return solution_of(problem, nets, dict(zip(space._fields, space, strict=True)))
