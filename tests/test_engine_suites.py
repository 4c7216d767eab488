"""The suites that come with the harness: every name in them exists, and rows have a baseline to meet."""

from __future__ import annotations

import pytest

from harness import registry
from harness.engine.pairing import pair_with_baseline
from harness.engine.plan import suite_points
from harness.engine.suite import load_suite, names
from harness.params import bind

SUITES = names()


def test_the_suites_are_there() -> None:
    expected = {"quickstart", "ptq-lm", "ptq-vision", "ptq-encoder", "prune-lm", "lowrank-lm"}
    assert expected <= set(SUITES)


@pytest.mark.parametrize("name", SUITES)
def test_names_and_parameters_exist(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite_points(suite)
    for problem in suite.problems():
        for expression in problem.metrics:
            entry = registry.resolve(expression, "metric")
            assert list(bind(expression, entry.params, entry.name))


@pytest.mark.parametrize("name", SUITES)
def test_what_shares_a_parameter_with_the_baseline_meets_it(name: str) -> None:
    suite = load_suite(name)
    assert suite.baseline is not None
    points = suite_points(suite)
    pairs = pair_with_baseline([(point.method, point.params) for point in points], suite.baseline)
    shared = set(registry.resolve(suite.baseline, track=suite.track).params)
    others = [
        (point, pair) for point, pair in zip(points, pairs, strict=True)
        if point.method != suite.baseline.name and shared & set(point.params)
        and registry.get(point.method, track=suite.track).role == "method"
    ]  # fmt: skip
    # Compression is compared at the same bits or sparsity; methods of other tracks may share no parameter at all.
    assert others or suite.track != "compress"
    assert [str(point) for point, pair in others if pair is None] == []
