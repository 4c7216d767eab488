"""The training loop: resumption bit for bit, counted passes, schedules, and stopping when the loss is lost."""

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from harness.errors import BadInput, TrialFailed
from harness.train.loop import Phase, run_phases
from harness.train.progress import progress
from harness.train.schedules import constant, cosine, linear, warmup_stable_decay

ROWS = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))


def small_model() -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    model = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 5))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return model


def noisy_loss(model, batch, generator):
    """Draws from both our generator and, through dropout, torch's own."""
    target = batch + 0.1 * torch.randn(batch.shape, generator=generator)
    return {"square": (model(batch) - target).square().mean(), "first": 1e-3 * model[0].weight.abs().sum()}


def two_phases() -> list[Phase]:
    common = {"batches": lambda i: ROWS[(i * 8) % 64 : (i * 8) % 64 + 8], "loss": noisy_loss}
    adam = lambda named: torch.optim.AdamW(named.values(), lr=1e-2)  # noqa: E731
    both = lambda named: [  # noqa: E731
        torch.optim.SGD([named["0.weight"]], lr=0.1, momentum=0.9),
        torch.optim.AdamW([named["3.weight"]], lr=1e-2),
    ]
    return [
        Phase(7, optimizer=adam, name="all", schedule=cosine(warmup=2), accumulate=2, **common),
        Phase(
            9,
            optimizer=both,
            name="weights",
            trains=lambda name: name in ("0.weight", "3.weight"),
            start=lambda model: nn.init.zeros_(model[3].bias),
            **common,
        ),
    ]


def run(checkpoint=None, **options):
    model = small_model()
    scores = lambda model: {"zero": model(torch.zeros(1, 5)).sum()}  # noqa: E731
    generator = torch.Generator().manual_seed(3)
    options = {"evaluate": scores, "evaluate_every": 3, "log_every": 1, "tag": "small", **options}
    fitted = run_phases(model, two_phases(), generator=generator, checkpoint=checkpoint, **options)
    return model, fitted


def equal(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("stops", [(1,), (7,), (3, 8, 12), tuple(range(1, 16))])
def test_stopped_and_continued_ends_in_the_same_weights(tmp_path, stops):
    model, fitted = run()
    for stop in stops:
        part, interrupted = run(tmp_path / "c.pt", stop_after=stop)
        assert not interrupted.complete
        assert interrupted.passes.steps == stop
        assert not equal(part, model)
    resumed, continued = run(tmp_path / "c.pt")
    assert equal(resumed, model)
    assert continued.complete
    assert continued.history == fitted.history
    assert continued.passes == fitted.passes


def test_a_finished_run_is_not_trained_again(tmp_path):
    model, fitted = run(tmp_path / "c.pt")
    again, repeated = run(tmp_path / "c.pt")
    assert equal(again, model)
    assert repeated.passes == fitted.passes


def test_training_leaves_the_callers_random_state_and_flags():
    model = small_model().eval()
    before = torch.get_rng_state()
    run_phases(model, two_phases(), generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model[0]._forward_hooks


KILLED = """
import sys, pathlib, time
sys.path.insert(0, {tests!r})
from test_train import run
import harness.train.loop as loop
original = loop._step
def slowly(run, *args):
    time.sleep(0.05 if run.steps < 10 else 3600)
    return original(run, *args)
loop._step = slowly
run(pathlib.Path({checkpoint!r}), checkpoint_every=1)
"""


def test_killed_at_any_moment_continues_to_the_same_weights(tmp_path):
    checkpoint = tmp_path / "c.pt"
    code = KILLED.format(tests=os.path.dirname(__file__), checkpoint=str(checkpoint))
    process = subprocess.Popen([sys.executable, "-c", code])
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < torch.load(checkpoint, weights_only=True)["passes"]["steps"] <= 10
    assert equal(run(checkpoint)[0], run()[0])


def test_only_the_chosen_parameters_train_and_start_runs_once(tmp_path):
    model, _ = run(stop_after=7)
    after, _ = run()
    assert torch.equal(after[0].bias, model[0].bias)
    assert not torch.equal(after[0].weight, model[0].weight)
    assert torch.count_nonzero(after[3].bias) == 0


def test_budget_counts_samples_through_every_counted_module():
    student, teacher = small_model(), small_model().eval()

    def loss(model, batch, generator):
        with torch.no_grad():
            target = teacher(batch)
        return (model(batch) - target).square().mean() + model(batch[:4]).square().mean()

    sgd = lambda named: torch.optim.SGD(named.values(), lr=0.01)  # noqa: E731
    phase = Phase(5, lambda i: ROWS[:8], loss, sgd, accumulate=3)
    scores = lambda model: {"x": model(ROWS).sum()}  # noqa: E731
    options = {"generator": torch.Generator(), "evaluate": scores, "evaluate_every": 1}
    fitted = run_phases(student, [phase], counted=[teacher], **options)
    assert (fitted.passes.steps, fitted.passes.forward, fitted.passes.backward) == (5, 15 * (8 + 4 + 8), 15 * (8 + 4))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_lost_loss_stops_with_the_step(value):
    def loss(model, batch, generator):
        return model(ROWS[:8]).mean() * (value if batch == 3 else 1.0)

    phase = Phase(9, lambda i: i, loss, lambda named: torch.optim.SGD(named.values(), lr=0.1), name="warm")
    with pytest.raises(TrialFailed, match=r"the loss is -?(nan|inf) at step 4 of phase 'warm'"):
        run_phases(small_model(), [phase], generator=torch.Generator())


def test_accumulated_batches_are_their_mean():
    sgd = lambda named: torch.optim.SGD(named.values(), lr=0.1)  # noqa: E731
    loss = lambda model, batch, generator: model(batch).square().mean()  # noqa: E731
    whole, parts = nn.Linear(5, 3), nn.Linear(5, 3)
    parts.load_state_dict(whole.state_dict())
    run_phases(whole, [Phase(1, lambda i: ROWS[:16], loss, sgd)], generator=torch.Generator())
    four = Phase(1, lambda i: ROWS[4 * i : 4 * i + 4], loss, sgd, accumulate=4)
    run_phases(parts, [four], generator=torch.Generator())
    torch.testing.assert_close(whole.weight, parts.weight)


def test_gradients_are_clipped_to_the_norm():
    model = nn.Linear(5, 1, bias=False)
    before = model.weight.detach().clone()
    phase = Phase(
        1,
        lambda i: ROWS,
        lambda model, batch, generator: 1e3 * model(batch).sum(),
        lambda named: torch.optim.SGD(named.values(), lr=1.0),
        clip=0.5,
    )
    run_phases(model, [phase], generator=torch.Generator())
    assert (model.weight - before).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_autocast_computes_the_loss_in_bfloat16_and_keeps_float32_weights():
    seen = []

    def loss(model, batch, generator):
        seen.append(model(batch).dtype)
        return model(batch).float().square().mean()

    model = nn.Linear(5, 3)
    phase = Phase(1, lambda i: ROWS, loss, lambda named: torch.optim.SGD(named.values(), lr=1.0))
    run_phases(model, [phase], generator=torch.Generator(), autocast=torch.bfloat16)
    assert seen == [torch.bfloat16]
    assert model.weight.dtype == torch.float32


def test_checkpoints_of_another_run_or_damaged_are_refused(tmp_path):
    path = tmp_path / "c.pt"
    run(path, stop_after=4)
    with pytest.raises(BadInput, match="another plan"):
        run(path, tag="other")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadInput, match="not a readable checkpoint"):
        run(path)


def test_schedules():
    total = 100
    for schedule in (linear(warmup=10), cosine(warmup=10), warmup_stable_decay(warmup=10, decay=0.5)):
        factors = [schedule(step, total) for step in range(total + 1)]
        assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
        assert factors[10] == 1.0
        assert factors[100] == pytest.approx(0.0)
        assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    assert linear()(25, 100) == 0.75
    assert cosine(end=0.2)(50, 100) == pytest.approx(0.6)
    assert warmup_stable_decay(decay=0.2)(79, 100) == 1.0
    assert warmup_stable_decay(decay=0.2)(90, 100) == pytest.approx(0.5)
    assert warmup_stable_decay(decay=0.0)(99, 100) == constant(99, 100) == 1.0


def test_progress_away_from_a_terminal_is_plain_lines(capsys):
    with progress("work", 3) as advance:
        for step in (1, 2, 3):
            advance(step, f"loss {step}")
    assert capsys.readouterr().err == "work 3/3 loss 3 (0:00 left)\n"
