"""From suites to trials: the grid, what identifies a trial, and what does not."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from engine_toy import SUITE, Toy, toy_fixture  # noqa: F401

from harness import BadInput, registry
from harness.engine import plan as plan_module
from harness.engine.plan import MetricCall, Plan, Point, Trial, canonical, plan_suite, suite_points
from harness.engine.suite import load_suite


def plan(path: Path, **options: object) -> Plan:
    return plan_suite(load_suite(path), **options)  # type: ignore[arg-type]


def labels(one: Plan) -> list[str]:
    return [trial.label for trial in one]


TRIAL = Trial(
    "s", "toy", Point("shift", "v1", {"by": 2}, {"by": 2, "twice": False}), {"model": "one", "size": 4},
    {"model": "aa"}, 0, (MetricCall("error", "error", "v1", {"power": 1}, {"dataset": "bb"}),),
)  # fmt: skip


def test_trials_are_problems_by_seeds_by_points(toy: Toy) -> None:
    found = plan(toy.write(models="[one, two]"))
    assert len(found) == len(list(found)) == 2 * 2 * 3
    assert labels(found)[:4] == [
        "shift(by=1) on one seed 0", "shift(by=2) on one seed 0", "noise on one seed 0", "shift(by=1) on one seed 1",
    ]  # fmt: skip
    assert labels(found)[6] == "shift(by=1) on two seed 0"
    assert len({trial.hash for trial in found}) == len(found)
    assert found[5] == list(found)[5]


def test_a_point_written_twice_is_one(toy: Toy) -> None:
    assert labels(plan(toy.write(methods='[shift, "shift(by=[1, 3])"]', seeds="1"))) == [
        "shift on one seed 0", "shift(by=3) on one seed 0",
    ]  # fmt: skip


def test_a_point_that_tuning_would_make_two_is_refused(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a suite sets is not tuned, so these two would be different results under one name."""
    methods = '[shift, "shift(by=1)"]'
    entry = registry.get("shift")
    monkeypatch.setitem(registry._entries, entry.key, dataclasses.replace(entry, tune={"by": (1, 2)}))
    assert len(plan(toy.write(methods=methods, seeds="1"))) == 1
    with pytest.raises(BadInput, match=r"toys.yaml:7: shift\(by=1\) has the parameters of shift and would bear"):
        plan(toy.write(methods=methods, problem="{size: 4, tuning: 2}"))
    told_apart = toy.write(methods='[shift, "shift(by=2)"]', problem="{size: 4, tuning: 2}")
    assert len(suite_points(load_suite(told_apart))) == 2


@pytest.mark.parametrize(("tuning", "same"), [(2, False), (0, True)])
def test_a_default_that_a_suite_keeps_from_tuning_is_another_trial(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, tuning: int, same: bool
) -> None:
    """Two suites on one ledger: in the first `by` is tuned, in the second it is not."""
    entry = registry.get("shift")
    monkeypatch.setitem(registry._entries, entry.key, dataclasses.replace(entry, tune={"by": (1, 2)}))
    found = [plan(toy.write(methods=f"[{one}]", seeds="1"))[0] for one in ("shift", '"shift(by=1)"')]
    tuned, fixed = (dataclasses.replace(one, spec={**one.spec, "tuning": tuning}) for one in found)
    assert tuned.point.params == fixed.point.params
    assert (tuned.hash == fixed.hash) is same
    assert Trial.from_json(fixed.to_json()).hash == fixed.hash


def test_the_hash_is_stable() -> None:
    """Across processes, versions of Python and releases: a ledger is kept for years."""
    assert TRIAL.hash == "aeb60ac912b38b3938adf591049f6c6765f3115d48403e91c964ac445aed3806"
    assert TRIAL.cell == "3bde45f34423d37a51bff3c400bd871977b7f80a8a4e2c39629d956cd8913fbc"
    assert Trial.from_json(TRIAL.to_json()) == TRIAL
    assert Trial.from_json(TRIAL.to_json()).hash == TRIAL.hash


def test_the_order_of_fields_does_not_count() -> None:
    assert canonical({"a": 1, "b": [1.5, None]}) == canonical({"b": [1.5, None], "a": 1}) == '{"a":1,"b":[1.5,null]}'


POINT, METRIC = TRIAL.point, TRIAL.metrics[0]
CHANGES = {
    "method": {"point": dataclasses.replace(POINT, method="noise")},
    "source": {"point": dataclasses.replace(POINT, version="v2")},
    "parameters": {"point": dataclasses.replace(POINT, params={"by": 3, "twice": False})},
    "problem": {"spec": {"model": "one", "size": 5}},
    "model content": {"content": {"model": "ab"}},
    "seed": {"seed": 1},
    "limit": {"limit": 10},
    "track": {"track": "other"},
    "metric": {"metrics": (dataclasses.replace(METRIC, name="other"),)},
    "metric parameters": {"metrics": (dataclasses.replace(METRIC, params={"power": 2}),)},
    "metric source": {"metrics": (dataclasses.replace(METRIC, version="v2"),)},
    "metric data": {"metrics": (dataclasses.replace(METRIC, data={"dataset": "bc"}),)},
    "number of metrics": {"metrics": ()},
}
KEPT = {
    "suite": {"suite": "other"},
    "spelling": {"point": dataclasses.replace(POINT, given={"by": 2, "twice": False})},
    "metric label": {"metrics": (dataclasses.replace(METRIC, label="error(power=1)"),)},
    "model name": {"spec": {"model": "/elsewhere/one", "size": 4}},
    "time limit": {"seconds": 5.0},
    "memory limit": {"memory_gb": 5.0},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_determines_a_result_changes_the_hash(change: dict) -> None:
    assert dataclasses.replace(TRIAL, **change).hash != TRIAL.hash


@pytest.mark.parametrize("change", KEPT.values(), ids=KEPT)
def test_what_does_not_keeps_the_hash(change: dict) -> None:
    assert dataclasses.replace(TRIAL, **change).hash == TRIAL.hash


def test_a_cell_outlives_versions_and_content() -> None:
    newer = dataclasses.replace(TRIAL, point=dataclasses.replace(POINT, version="v2"), content={"model": "ab"})
    assert newer.cell == TRIAL.cell
    assert dataclasses.replace(TRIAL, seed=1).cell != TRIAL.cell
    assert dataclasses.replace(TRIAL, limit=1).cell != TRIAL.cell


def test_only_keeps_the_points_that_match(toy: Toy) -> None:
    path = toy.write(methods='["shift(by=[1, 2], twice=[false, true])", noise]')
    assert len(plan(path)) == 10
    assert labels(plan(path, only="shift(by=2)", seeds=1)) == [
        "shift(by=2, twice=False) on one seed 0", "shift(by=2, twice=True) on one seed 0",
    ]  # fmt: skip
    assert len(plan(path, only="shift(by=[1, 2], twice=true)", seeds=1)) == 2
    assert labels(plan(path, only="noise", seeds=1)) == ["noise on one seed 0"]
    assert len(plan(path, only="noise(scale=1)")) == 2


def test_seeds_limit_and_model_take_the_suites_place(toy: Toy) -> None:
    path = toy.write(limits="{seconds: 7, memory_gb: 2}")
    assert plan(path, seeds=3).seeds == (0, 1, 2)
    first = plan(path, limit=2, model="two")[0]
    assert (first.limit, first.model) == (2, "two")
    assert (first.seconds, first.memory_gb) == (7, 2)


BAD = {
    "unknown method": ({"methods": "[nois]"}, {}, "toys.yaml:8: unknown method 'nois'; did you mean noise?"),
    "unknown parameter": (
        {"methods": '[noise, "shift(bye=2)"]'}, {}, "toys.yaml:8: shift has no parameter 'bye'; did you mean by?",
    ),
    "parameter in words": (
        {"methods": '["shift(by=four)"]'}, {}, "toys.yaml:8: shift: by='four' is not accepted; it takes an integer",
    ),
    "empty grid": (
        {"methods": '["shift(by=[])"]'}, {}, "toys.yaml:8: shift: by=[] is an empty grid; it takes at least one value",
    ),
    "not one of": (
        {"methods": '["trouble(kind=dance)"]'}, {},
        "toys.yaml:8: trouble: kind='dance' is not accepted; it takes one of 'sleep', 'eat', 'kill', 'exit', 'error', "
        "'refuse', 'fail', 'nan', 'print', 'child'",
    ),
    "unknown metric": ({"metrics": "[eror]"}, {}, "toys.yaml:8: unknown metric 'eror'; did you mean error?"),
    "unknown baseline": ({"baseline": "nois"}, {}, "toys.yaml:9: unknown method 'nois'; did you mean noise?"),
    "unknown model": ({"models": "[one, tow]"}, {}, "toys.yaml:8: unknown model 'tow'; did you mean two?"),
    "unknown problem field": ({"problem": "{sise: 2}"}, {}, "toys.yaml:4: unknown field sise; known: model, size"),
    "unknown dataset": (
        {"metrics": '["error(dataset=digit)"]'}, {},
        "toys.yaml:8: unknown dataset 'digit'; did you mean digits? (or give a Hub id, org/name)",
    ),
    "model option": ({}, {"model": "tow"}, "toys.yaml:4: unknown model 'tow'; did you mean two?"),
    "only nothing": (
        {}, {"only": "shift(by=9)"}, "--only shift(by=9): no trial of suite toys matches; known: noise, shift",
    ),
    "only unknown": ({}, {"only": "shft"}, "--only: unknown method 'shft'; did you mean shift?"),
    "only unreadable": (
        {}, {"only": "shift("},
        "--only: expression 'shift(' cannot be read; write name or name(parameter=value, ...)",
    ),
    "no seeds": ({}, {"seeds": 0}, "--seeds 0 is not accepted; it takes a number of at least 1"),
    "no items": ({}, {"limit": 0}, "--limit 0 is not accepted; it takes a number of at least 1"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "options", "message"), BAD.values(), ids=BAD)
def test_what_does_not_exist_is_one_line(toy: Toy, changes: dict, options: dict, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        plan(toy.write(**changes), **options)
    assert str(caught.value) == message


def test_a_method_of_another_track_is_refused(toy: Toy) -> None:
    from harness import registry

    registry.get("shift")
    registry._entries["method", "toy.shift"] = dataclasses.replace(registry.get("shift"), track="train")
    with pytest.raises(BadInput) as caught:
        plan(toy.write())
    assert str(caught.value) == "toys.yaml:6: method shift is of track train; the suite is of track toy"


def test_a_grid_too_large_is_refused(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toy.write(methods=f'["noise(scale=[{", ".join(map(str, range(50)))}])"]')
    assert len(plan(path)) == 100
    monkeypatch.setattr(plan_module, "MAX_POINTS", 49)
    with pytest.raises(BadInput, match=r"^toys\.yaml:8: noise: the grid has more than 49 points; give fewer values$"):
        plan(path)


def test_data_is_known_by_its_content(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    monkeypatch.setenv("HARNESS_DATA", str(toy.folder / "data"))
    file = toy.folder / "data" / "org" / "name" / "default" / "test.parquet"
    file.parent.mkdir(parents=True)
    path = toy.write(metrics='["error(dataset=\\"org/name\\")"]'.replace('\\"', "'"))
    hashes = []
    for values in ([1, 2], [1, 3], [1, 2]):
        parquet.write_table(pa.table({"x": values}), file)
        hashes.append(plan(path)[0].hash)
    assert hashes[0] == hashes[2] != hashes[1]


def test_the_source_of_a_method_is_part_of_its_trials_alone(toy: Toy) -> None:
    path = toy.write()
    before = {trial.label: trial.hash for trial in plan(path)}
    source = toy.code / "toy_methods" / "shift.py"
    source.write_text(source.read_text().replace("+ by", "- by"))
    toy.reload()
    after = {trial.label: trial.hash for trial in plan(path)}
    assert {label for label in before if before[label] != after[label]} == {
        label for label in before if label.startswith("shift")
    }


def test_suites_are_read_without_torch() -> None:
    """`harness list suites` answers before torch could be imported."""
    code = "import sys, harness.engine.run, harness.engine.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_long_plan_takes_no_memory(toy: Toy) -> None:
    import tracemalloc

    long = plan(toy.write(SUITE, seeds="10000"))
    tracemalloc.start()
    count = sum(1 for at in range(0, len(long), 100) if long[at].seed >= 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 300
    assert peak < 200_000
