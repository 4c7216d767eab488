"""`harness regressions`: asv's results of two commits, and which benchmarks got slower by more than their noise."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness import regressions
from harness.cli import main
from harness.errors import BadInput
from harness.regressions import Run, Sampled, compare, pairs

COLUMNS = ["result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b", "stats_q_25",
           "stats_q_75", "stats_number", "stats_repeat"]  # fmt: skip
ONE, TWO, THREE = "1" * 40, "2" * 40, "3" * 40


def benchmark(results, low=None, high=None, params=()):
    """A benchmark as asv stores it; trailing columns that hold nothing are left out."""
    values = [results, [list(one) for one in params], "v", 0, 1.0, low, high, low, high]
    return values if low is not None else values[:5]


def write(folder: Path, commit: str, date: int, benchmarks: dict, machine="m", environment="env") -> Path:
    path = folder / machine / f"{commit[:8]}-{environment}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {"commit_hash": commit, "date": date, "env_name": environment, "result_columns": COLUMNS,
            "results": benchmarks, "version": 2}  # fmt: skip
    path.write_text(json.dumps(body))
    return path


@pytest.fixture
def results(tmp_path):
    """Three commits, the last of which made one benchmark slower and one faster, beyond their noise."""
    quiet = {"steady": benchmark([1.0], [0.95], [1.05]), "slowed": benchmark([1.0], [0.98], [1.02]),
             "helped": benchmark([1.0], [0.98], [1.02]), "noisy": benchmark([1.0], [0.7], [1.4])}  # fmt: skip
    changed = {"steady": benchmark([1.01], [0.96], [1.06]), "slowed": benchmark([1.5], [1.4], [1.6]),
               "helped": benchmark([0.5], [0.45], [0.55]), "noisy": benchmark([1.5], [0.9], [1.9])}  # fmt: skip
    write(tmp_path, TWO, 200, quiet)
    write(tmp_path, ONE, 100, {name: benchmark([9.0], [8.9], [9.1]) for name in quiet})
    write(tmp_path, THREE, 300, changed)
    (tmp_path / "m" / "machine.json").write_text("{}")
    (tmp_path / "benchmarks.json").write_text("{}")
    return tmp_path


def run(*arguments: str):
    return CliRunner().invoke(main, ["regressions", *arguments])


def verdicts(folder, **options):
    ((base, head),) = pairs(folder, **options)
    return {one.name: one.verdict for one in compare(base, head)}


def test_the_last_two_commits_by_date_are_compared(results):
    ((base, head),) = pairs(results)
    assert (base.commit, head.commit) == (TWO, THREE)
    assert verdicts(results) == {"steady": "same", "slowed": "slower", "helped": "faster", "noisy": "same"}


def test_two_commits_can_be_named(results):
    assert set(verdicts(results, base="1", head="2").values()) == {"faster"}
    ((base, head),) = pairs(results, head="2")
    assert (base.commit, head.commit) == (ONE, TWO)
    ((base, head),) = pairs(results, base="1")
    assert (base.commit, head.commit) == (ONE, THREE)


@pytest.mark.parametrize(
    ("base", "head", "threshold", "verdict"),
    [
        (Sampled(1.0, 0.9, 1.1), Sampled(1.2, 1.11, 1.3), 0.05, "slower"),
        (Sampled(1.0, 0.9, 1.1), Sampled(1.2, 1.09, 1.3), 0.05, "same"),  # the middle halves overlap
        (Sampled(1.0, 0.99, 1.01), Sampled(1.04, 1.03, 1.05), 0.05, "same"),  # beyond the noise, too small to matter
        (Sampled(1.0, 0.99, 1.01), Sampled(1.04, 1.03, 1.05), 0.0, "slower"),
        (Sampled(1.2, 1.11, 1.3), Sampled(1.0, 0.9, 1.1), 0.05, "faster"),
        (Sampled(1.0), Sampled(3.0, 2.9, 3.1), 0.05, "not judged"),
        (Sampled(1.0, 0.9, 1.1), Sampled(3.0), 0.05, "not judged"),
        (Sampled(1.0, 0.9, 1.1), None, 0.05, "failed"),
    ],
)
def test_the_rule(base, head, threshold, verdict):
    (found,) = compare(Run("a", 1, "e", {"b": base}), Run("b", 2, "e", {"b": head}), threshold)
    assert found.verdict == verdict


def test_benchmarks_that_only_one_commit_has_or_that_failed_at_the_base_are_left_out():
    one, two = Sampled(1.0, 0.9, 1.1), Sampled(2.0, 1.9, 2.1)
    base, head = {"gone": one, "broken": None, "kept": one}, {"new": one, "broken": two, "kept": two}
    assert [change.name for change in compare(Run("a", 1, "e", base), Run("b", 2, "e", head))] == ["kept"]


def test_each_combination_of_parameters_is_a_benchmark(tmp_path):
    params = [["'a'", "'b'"], ["1", "2"]]
    write(tmp_path, ONE, 1, {"t": benchmark([1.0, 1.0, math.nan, None], [0.9] * 4, [1.1] * 4, params)})
    write(tmp_path, TWO, 2, {"t": benchmark([2.0, None, math.nan, 1.0], [1.9] * 4, [2.1] * 4, params)})
    assert verdicts(tmp_path) == {"t('a', 1)": "slower", "t('a', 2)": "failed"}


def test_a_benchmark_measured_once_is_not_judged(tmp_path):
    """asv gives the sample itself as both quartiles, or none."""
    write(tmp_path, ONE, 1, {"one": benchmark([1.0], [1.0], [1.0]), "none": benchmark([1.0])})
    write(tmp_path, TWO, 2, {"one": benchmark([5.0], [5.0], [5.0]), "none": benchmark([5.0])})
    assert set(verdicts(tmp_path).values()) == {"not judged"}
    assert run("--results", str(tmp_path)).exit_code == 0


def test_only_one_environment_is_compared_with_itself(tmp_path):
    for environment, factor in (("py3.11", 1), ("py3.12", 3)):
        write(tmp_path, ONE, 1, {"b": benchmark([1.0], [0.9], [1.1])}, environment=environment)
        write(tmp_path, TWO, 2, {"b": benchmark([factor], [0.9 * factor], [1.1 * factor])}, environment=environment)
    found = {head.environment: compare(base, head)[0].verdict for base, head in pairs(tmp_path)}
    assert found == {"py3.11": "same", "py3.12": "slower"}


def test_the_command_exits_1_and_names_what_is_slower(results):
    done = run("--results", str(results))
    assert done.exit_code == 1
    assert "slower  1.50x  1 s to 1.5 s  slowed" in done.output
    assert "faster  0.50x  1 s to 500 ms  helped" in done.output
    assert "4 benchmarks: 1 slower, 0 failed, 1 faster, 2 same, 0 not judged" in done.output
    assert "noisy" not in done.output
    assert run("--results", str(results), "--threshold", "0.6").exit_code == 0


def test_json_has_every_benchmark_on_a_line(results):
    rows = [json.loads(line) for line in run("--results", str(results), "--json").stdout.splitlines()]
    assert {row["name"]: row["ratio"] for row in rows} == {"steady": 1.01, "slowed": 1.5, "helped": 0.5, "noisy": 1.5}
    assert all(row["commits"] == [TWO, THREE] for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "has no results of asv; `asv run` writes them"),
        ({"machine": "n"}, "has no results of asv"),
    ],
)
def test_a_folder_without_results_is_bad_input(tmp_path, options, message):
    with pytest.raises(BadInput, match=message):
        pairs(tmp_path / "none", **options)


def test_bad_input_is_one_line(results, tmp_path_factory):
    refused = {
        "--base 7: is no commit with results": {"base": "7"},
        "are both commit 33333333": {"base": "3", "head": "3"},
        "has results of 3 commits, none before 11111111": {"head": "1"},
        "--machine x: has no results": {"machine": "x"},
    }
    for message, options in refused.items():
        with pytest.raises(BadInput, match=message):
            pairs(results, **options)
    write(results, ONE, 1, {}, machine="other")
    with pytest.raises(BadInput, match="several machines; choose one with --machine: m, other"):
        pairs(results)
    assert pairs(results, machine="m")
    done = run("--results", str(tmp_path_factory.mktemp("empty")))
    assert done.exit_code == 2
    assert done.output.count("\n") == 1
    assert run("--threshold", "-1").exit_code == 2


def test_a_damaged_file_is_named(results):
    path = results / "m" / f"{ONE[:8]}-env.json"
    path.write_text("{")
    with pytest.raises(BadInput, match=f"{path.name}: is no result of asv"):
        pairs(results)


def test_asv_stores_what_is_read():
    """The columns that asv itself writes, and where its configuration puts the results."""
    results = pytest.importorskip("asv.results")
    import inspect

    source = inspect.getsource(results)
    assert all(f"'{column}'" in source for column in ("result", "params", "stats_q_25", "stats_q_75"))
    conf = (Path(__file__).parents[1] / "asv.conf.json").read_text()
    assert f'"results_dir": "{regressions.RESULTS.as_posix()}"' in conf
