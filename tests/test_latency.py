"""Latency: interleaving, limits and statistics with fake clocks; the track, its suites and tables on tiny shapes."""

from __future__ import annotations

import dataclasses
import json
import os
from contextlib import closing

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from harness import registry
from harness.cli import main
from harness.engine import run as run_module
from harness.engine.environment import environment
from harness.engine.ledger import open_ledger
from harness.engine.plan import plan_suite
from harness.engine.run import run_suite
from harness.engine.suite import load_suite
from harness.engine.trial import run_trial
from harness.errors import BadInput, TrialFailed
from harness.latency import ceilings, linear, machine, measure, shapes, weights
from harness.latency.rounds import Rounds, interleave, plain, spread
from harness.latency.threads import pinned
from harness.latency.timing import Timing
from harness.metrics import latency as metrics
from harness.metrics.subject import Subject
from harness.packed import CompressedLinear
from harness.stats import paired_ratio
from harness.tables.build import Scope, tabulate
from harness.tracks import latency as track

SUITE = """\
suite: tiny
title: Tiny products
track: latency
problems:
  - {model: 96x128, rounds: 6}
methods: ["floating(dtype=[float32, bfloat16])", "uniform(bits=4, kernel=[fastest, int8, reference])"]
metrics: [product_time, speedup, of_limit]
baseline: floating(dtype=float32)
"""


class Clock:
    """A contender on a machine that gets slower and slower: its turns take `seconds` times the time so far."""

    now = 1.0

    def __init__(self, seconds: float, log: list, name: str):
        self.seconds, self.log, self.name = seconds, log, name

    def __call__(self) -> dict[str, float]:
        self.log.append(self.name)
        Clock.now += 0.01
        return {"product": self.seconds * Clock.now}


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch):
    """Nothing here is about how fast this machine is."""
    monkeypatch.setattr(ceilings, "CPU_BYTES", 1 << 20)
    monkeypatch.setattr(ceilings, "CPU_WIDTH", 16)
    monkeypatch.setattr(linear, "CACHE", 1 << 20)
    monkeypatch.setattr(linear, "TURN", 0.0)
    for cached in (ceilings.measured, ceilings._buffer):
        cached.cache_clear()
    yield
    for cached in (ceilings.measured, ceilings._buffer):
        cached.cache_clear()


def rounds(method, baseline, bandwidth=1e9, phase="product"):
    """Rounds in which every turn took so long: sequences of seconds, one a round."""
    both = [{phase: np.repeat(np.asarray(values, float)[:, None], 2, axis=1)} for values in (method, baseline)]
    return Rounds(*both, np.full((len(method), 2), bandwidth))


def timing(method, baseline, limit=0.5, **fields):
    made = rounds(method, baseline)
    return Timing(made, "product", 1, np.full(len(made), limit), "96x128|on:here", **fields)


def subject(one: Timing, limit: int | None = None) -> Subject:
    return Subject(None, "latency", limit=limit, extra={"timing": one})  # type: ignore[arg-type]


def test_rounds_are_a_b_b_a_and_every_second_one_the_other_way_round():
    log: list[str] = []
    found = interleave(Clock(1, log, "a"), Clock(1, log, "b"), lambda: 1.0, rounds=2, warm_up=1)
    assert "".join(log) == "baab" + "abba" + "baab"
    assert found.method["product"].shape == found.baseline["product"].shape == found.bandwidth.shape == (2, 2)
    assert len(found) == 2


def test_a_machine_that_gets_slower_does_not_move_the_ratio():
    """Each turn is slower than the one before it; within a round that cancels."""
    found = interleave(Clock(1.0, [], "a"), Clock(2.0, [], "b"), lambda: 1.0, rounds=10)
    ratio = paired_ratio(found.baseline["product"], found.method["product"])
    assert ratio.value == pytest.approx(2.0, rel=1e-4)
    assert ratio.low == pytest.approx(ratio.high, rel=1e-3)
    plainly = np.median(found.baseline["product"][5:]) / np.median(found.method["product"][:5])
    assert plainly > 2.1  # what two runs, one after the other, would have said


def test_warm_up_rounds_are_run_and_not_kept():
    log: list[str] = []
    found = interleave(Clock(1, log, "a"), Clock(1, log, "b"), lambda: 1.0, rounds=3, warm_up=2)
    assert len(log) == 4 * 5
    assert len(found) == 3


def test_spread_is_relative():
    seconds = np.repeat(np.array([1.0, 1.0, 1.2, 0.8])[:, None], 2, axis=1)
    assert spread(seconds) == spread(1000 * seconds) == pytest.approx(0.05)
    assert spread(np.ones((6, 2))) == 0


def test_rounds_are_kept_as_json():
    kept = json.loads(json.dumps(plain(rounds([1, 2], [3, 4]))))
    assert kept["method"]["product"] == [[1, 1], [2, 2]]
    assert kept["bandwidth"] == [[1e9, 1e9]] * 2


def test_the_limit_is_what_the_bytes_take_or_the_arithmetic_if_that_is_longer():
    bandwidth = np.array([[1e9, 2e9], [4e9, 1e9]])
    assert linear.least_seconds(8e9, 0, bandwidth, 0).tolist() == [4, 2]
    assert linear.least_seconds(8e9, 3e12, bandwidth, 1e12).tolist() == [4, 3]


def test_operations_are_two_for_each_weight_and_row_unless_activations_are_rounded():
    g = torch.Generator().manual_seed(0)
    plain_layer = CompressedLinear(weights.uniform(32, 64, g, bits=4), kernel="fastest")
    assert linear.operations([plain_layer, plain_layer], 3) == 2 * 2 * 3 * 32 * 64
    rounded = CompressedLinear(weights.uniform(32, 64, g, bits=4), kernel="int8")
    assert linear.operations([rounded], 3) == 0


def test_a_turn_is_the_shortest_pass_and_copies_rotate():
    layer = CompressedLinear(weights.uniform(8, 16, torch.Generator().manual_seed(0), bits=4), kernel="reference")
    seconds = iter([5.0, 3.0, 4.0, 9.0])
    seen = []

    def fake(call) -> float:
        call()
        seen.append(contender.at % 2)
        return next(seconds)

    contender = linear.Products([[layer], [linear.copied(layer)]], {16: torch.ones(1, 16)}, fake, calls=2)
    assert contender() == {"product": 3.0}
    assert contender() == {"product": 4.0}
    assert seen == [0, 1, 0, 1]


def test_copies_are_in_memory_of_their_own():
    layer = CompressedLinear(weights.uniform(32, 64, torch.Generator().manual_seed(0), bits=4), kernel="int8")
    copy = linear.copied(layer)
    assert copy.kernel == "int8"
    for name, tensor in layer.weight.packed.tensors().items():
        assert torch.equal(tensor, copy.weight.packed.tensors()[name])
        assert tensor.data_ptr() != copy.weight.packed.tensors()[name].data_ptr()


def test_metrics_are_medians_of_rounds_with_the_interval_of_paired_ratio():
    one = timing([1, 1, 1, 2, 1, 1, 1, 4], [3, 3, 3.3, 6, 3, 2.7, 3, 12])
    taken = metrics.speedup(subject(one))
    ratio = one.ratio()
    assert taken.value == pytest.approx(ratio.value) == pytest.approx(3.0)
    assert taken.extra["p"] == ratio.p
    from harness.stats import ScoreSet, interval

    found = interval(ScoreSet.stack([taken], [0]))
    assert (found.low, found.high) == pytest.approx((ratio.low, ratio.high))
    time = metrics.product_time(subject(one))
    assert (time.value, time.unit, time.extra["limit"]) == (1e6, "µs", 0.5e6)
    assert metrics.of_limit(subject(one)).value == 50


def test_seeds_make_the_trial_the_unit():
    """Rounds of two processes have nothing in common: with several seeds there is one number a seed."""
    from harness.stats import ScoreSet, interval

    taken = [metrics.speedup(subject(timing([1] * 6, [speed] * 6))) for speed in (2.0, 4.0, 8.0)]
    stacked = ScoreSet.stack(taken, [0, 1, 2])
    assert stacked.values.shape == (3, 1)
    assert stacked.value == pytest.approx(4.0)
    assert interval(stacked).levels == "seeds"


def test_rates_count_the_rows():
    made = rounds([0.5] * 6, [1.0] * 6, phase="token")
    made.method["first"] = made.baseline["first"] = np.full((6, 2), 2.0)
    one = Timing(made, "token", 4, np.full(6, 0.1), "llama|on:here", memory=3e6)
    rate = metrics.decode_rate(subject(one))
    assert (rate.value, rate.extra["limit"], rate.higher_is_better) == (8, pytest.approx(40), True)
    assert metrics.first_token_time(subject(one)).value == 2000
    assert metrics.speedup(subject(one), phase="first").value == 1
    assert metrics.run_memory(subject(one)).value == 3


def test_few_rounds_have_no_interval():
    from harness.stats import ScoreSet, interval

    taken = metrics.speedup(subject(timing([1] * 6, [2] * 6), limit=3))
    assert len(taken.ids) == 3
    found = interval(ScoreSet.stack([taken], [0]))
    assert (found.value, found.low, found.high) == (pytest.approx(2), -np.inf, np.inf)


def test_metrics_refuse_what_was_not_timed():
    with pytest.raises(BadInput, match="decode_rate is for problems that measure a token, not a product"):
        metrics.decode_rate(subject(timing([1] * 6, [1] * 6)))
    with pytest.raises(BadInput, match="product_time is for problems of the latency track"):
        metrics.product_time(Subject(None, "vision"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_the_signature_names_protocol_and_machine(name):
    problem = track.build({"model": "96x128", "rows": 2, "baseline": f"floating(dtype={name})"}, seed=0)
    assert problem.signature.startswith(
        f"96x128|product|rows:2|threads:1|device:cpu|rounds:10|baseline:floating(dtype={name})|on:"
    )
    assert problem.signature.endswith(machine.title("cpu"))


def test_times_of_another_machine_are_another_trial(monkeypatch):
    spec = {"model": "96x128", "baseline": "floating"}
    here = track.describe(spec)
    monkeypatch.setattr(machine, "identity", lambda device: {"cpu": "another"})
    assert track.describe(spec)["machine"] != here["machine"]


def test_a_model_is_known_by_its_shape():
    seven = track.describe({"model": "llama-7b", "baseline": "floating"})
    assert seven["model"] != track.describe({"model": "llama-13b", "baseline": "floating"})["model"]
    assert "model" not in track.describe({"model": "96x128", "baseline": "floating"})


def test_the_layers_of_a_block_are_those_of_the_model():
    assert shapes.block_shapes("12x34") == [(12, 34)]
    assert set(shapes.block_shapes("llama-7b")) == {(4096, 4096), (11008, 4096), (4096, 11008)}
    assert len(shapes.block_shapes("tiny-llama")) == 7


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "lama-7b"}, "model='lama-7b' is not accepted; it is no product as 4096x4096, and did you"),
        ({"model": "0x4096"}, "model='0x4096' is not accepted; outputs and inputs are from 1 to"),
        ({"model": 4096}, "model=4096 is not accepted; it takes 4096x4096, or a model's name"),
        ({"threads": 0}, "threads=0 is not accepted; it takes a number from 1"),
        ({"threads": 4096}, "threads=4096 is not accepted; this process may use"),
        ({"rows": 1.5}, "rows=1.5 is not accepted"),
        ({"layers": 0}, "layers=0 is not accepted"),
        ({"device": "gpu"}, "device='gpu' is not accepted; it takes cpu or cuda"),
        ({"measure": "tokens"}, "measure='tokens' is not accepted; known: product, token"),
        ({"measure": "token"}, "model='96x128' is one product; measure: token takes a language model"),
        ({"baseline": "floatin"}, "unknown method 'floatin'; did you mean floating"),
        ({"baseline": "floating(dtype=[float32, bfloat16])"}, "names 2 points; a trial is timed against one"),
        ({"round": 3}, "unknown field round; did you mean rounds"),
    ],
)  # fmt: skip
def test_bad_problems_are_refused_in_one_line(fields, message):
    with pytest.raises(BadInput) as caught:
        track.describe({"model": "96x128", "baseline": "floating", **fields})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(BadInput, match="device='cuda' is not accepted; torch finds no CUDA device here"):
        track.describe({"model": "96x128", "baseline": "floating", "device": "cuda"})


@pytest.mark.parametrize("baseline", ["floating", "floating(dtype=float16)", "low_rank", "nothing"])
def test_a_baseline_that_is_not_in_the_suite_is_refused(tmp_path, baseline):
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE.replace("baseline: floating(dtype=float32)", f"baseline: {baseline}"))
    with pytest.raises(BadInput, match=r"tiny.yaml:8: "):
        plan_suite(load_suite(path))


def test_a_suite_without_a_baseline_is_refused(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE.replace("baseline: floating(dtype=float32)\n", ""))
    with pytest.raises(BadInput, match="field baseline is missing; trials of track latency are timed beside it"):
        plan_suite(load_suite(path))


def test_trials_are_not_timed_beside_each_other(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE)
    with pytest.raises(BadInput, match="--jobs 2 is not accepted; trials of track latency are timed"):
        run_suite(path, ledger=str(tmp_path / "ledger.db"), jobs=2)
    assert not (tmp_path / "ledger.db").exists()


def test_what_is_no_layer_fails_the_trial():
    entry = registry.get("floating", track="latency")

    def fake(layer, **params):
        return layer.shape

    made = track.maker(dataclasses.replace(entry, known=fake), {}, torch.Generator())
    with pytest.raises(TrialFailed, match="gave a tuple; it takes a CompressedLinear"):
        made(8, 8)
    wrong = track.maker(
        dataclasses.replace(entry, known=lambda layer: entry(track.LayerShape((8, 16), layer.generator))),
        {}, torch.Generator(),
    )  # fmt: skip
    with pytest.raises(TrialFailed, match="gave a layer of 8 x 16, not 8 x 8"):
        wrong(8, 8)


@pytest.fixture
def made(tmp_path):
    """(records, table) of the suite above, its trials run in this process, with the small buffers."""
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE)
    with closing(open_ledger(str(tmp_path / "ledger.db"))) as ledger:
        records = []
        ledger.add_environment("here", environment(jobs=1, threads=1))
        for trial in plan_suite(load_suite(path)):
            outcome = run_trial(trial)
            records.append(dataclasses.replace(outcome.record, environment="here"))
            ledger.save(records[-1], outcome.scores, suite="tiny")
        (table,) = tabulate(Scope.of(load_suite(path)), ledger)
        yield records, table


def test_a_trial_leaves_its_rounds_its_kernel_and_the_ceilings(made):
    for record in made[0]:
        assert record.status == "ok", record.traceback
        log = record.log
        assert np.array(log["rounds"]["method"]["product"]).shape == (6, 2)
        assert np.array(log["rounds"]["baseline"]["product"]).shape == (6, 2)
        assert log["ceilings"].startswith("1 thread: reads ")
        assert (log["threads"], log["bound"] in ("memory", "arithmetic")) == (1, True)
        assert log["energy_joules"]["method"]["kind"] in ("measured", "missing")
        assert record.size["bits_per_weight"] > 0
        ratio = paired_ratio(log["rounds"]["baseline"]["product"], log["rounds"]["method"]["product"])
        assert record.metrics["speedup"]["value"] == pytest.approx(ratio.value)
    kernels = [record.log["kernel"] for record in made[0]]
    assert kernels[-1] == "torch reference"
    assert kernels[2:] == [CompressedLinear(_uniform(), kernel=k).runs_on for k in ("fastest", "int8", "reference")]


def _uniform():
    return weights.uniform(96, 128, torch.Generator().manual_seed(0), bits=4)


def test_the_table_has_the_ratio_with_its_interval_and_no_differences_between_trials(made):
    records, table = made
    for record, row in zip(records, table.rows, strict=True):
        ratio = paired_ratio(*(record.log["rounds"][side]["product"] for side in ("baseline", "method")))
        shown = row.values["speedup"]
        assert (shown.value, shown.low, shown.high) == pytest.approx((ratio.value, ratio.low, ratio.high))
        assert any(record.log["kernel"] in table.notes[number - 1] for number in row.notes)
    assert not any(column.title.startswith("Δ") for column in table.columns)
    assert "A B B A" in " ".join(table.notes)


def test_the_ceilings_are_told_before_a_run(tmp_path, monkeypatch):
    """They are an event of their own, before the first trial starts; one job runs at a time."""
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE)
    events: list[dict] = []
    monkeypatch.setattr(run_module, "execute", lambda trials, **options: (None for _ in trials))
    run_suite(path, ledger=str(tmp_path / "ledger.db"), on_event=events.append)
    assert [event["event"] for event in events][:3] == ["machine", "plan", "start"]
    assert events[1]["jobs"] == 1
    (line,) = events[0]["lines"]
    assert line.startswith("1 thread: reads ")


def test_noisy_rounds_are_noted_on_their_row():
    log = {"kernel": "k", "bound": "memory", "spread": 0.3, "energy_joules": {"method": {"value": None}}}
    general, row = measure.remarks(log)
    assert any(note.startswith("Energy: missing") for note in general)
    assert "Its rounds vary by 30%: a noisy machine; read the interval, not the figure." in row
    general, row = measure.remarks({**log, "spread": 0.01, "energy_joules": {"method": {"value": 2.0}}})
    assert (general, row) == ([], ["Kernel: k."])
    general, row = measure.remarks({**log, "spread": 0.01, "machine": ["load 3.00 a core"]})
    assert measure.LOADED in general


def test_threads_are_what_they_were(monkeypatch):
    before = torch.get_num_threads(), os.sched_getaffinity(0)
    with pinned(1) as places:
        assert torch.get_num_threads() == 1
        assert os.sched_getaffinity(0) == set(places)
        assert len(places) == 1
    assert (torch.get_num_threads(), os.sched_getaffinity(0)) == before


def test_ceilings_name_the_best_of_their_readers(monkeypatch):
    speeds = iter([1e9, 5e9, *[2e9] * 50])
    monkeypatch.setattr(ceilings, "_speed", lambda read, buffer: next(speeds))
    found = ceilings.measured("cpu", 1)
    assert (found.bandwidth, found.reader) == (5e9, "torch max")
    assert str(found).startswith("1 thread: reads 5.0 GB/s (torch max, the best of ")


def test_quiet_machines_have_no_warnings():
    assert machine.Quiet(0.01, 0.1, 0.0, "performance").warnings == []
    noisy = machine.Quiet(0.2, 1.5, 0.05, "powersave")
    words = str(noisy)
    for part in ("varies by 20%", "load 1.50 a core", "5% of the time went to other guests", "governor powersave"):
        assert part in words
    assert "noisy machine" in words


def test_stolen_time_is_a_part_of_what_passed():
    assert machine._stolen([0] * 8, [50, 0, 0, 40, 0, 0, 0, 10]) == pytest.approx(0.1)
    assert machine._stolen([], []) == 0


def test_the_suites_are_planned():
    for name in ("latency-linear", "latency-lm"):
        plan = plan_suite(load_suite(name))
        assert len(plan) > 0
        assert all(trial.spec["baseline"] for trial in plan)
    other = plan_suite(load_suite("latency-linear"), model="tiny-llama")
    assert {trial.model for trial in other} == {"tiny-llama"}


def test_show_names_the_kernel_of_what_a_method_stores():
    for name, kind in (("gptq", "uniform"), ("uniform", "uniform"), ("svd", "lowrank")):
        shown = CliRunner().invoke(main, ["show", name, "--json"])
        formats = json.loads(shown.stdout.splitlines()[-1])["kernels"]
        assert any(line.startswith(f"{kind}: ") for line in formats), formats
    shown = CliRunner().invoke(main, ["show", "adamw", "--json"])
    assert "kernels" not in json.loads(shown.stdout) or not json.loads(shown.stdout)["kernels"]


@pytest.mark.parametrize("kernel", ["fastest", "int8", "reference"])
def test_activations_on_another_device_are_refused(kernel):
    layer = CompressedLinear(_uniform(), kernel=kernel)
    with pytest.raises(BadInput, match="x: is on device meta; accepted is cpu, where the packed weight is"):
        layer(torch.ones(1, 128, device="meta"))
    with pytest.raises(BadInput, match="x: is on device cpu; accepted is meta, where the packed weight is"):
        layer.to("meta")(torch.ones(1, 128))


@pytest.mark.parametrize("kernel", ["fastest", "int8", "reference"])
def test_activations_that_are_not_contiguous_give_the_same(kernel):
    layer = CompressedLinear(_uniform(), kernel=kernel)
    x = torch.randn(128, 6, generator=torch.Generator().manual_seed(0)).T[::2]
    assert not x.is_contiguous()
    assert torch.equal(layer(x), layer(x.contiguous()))
