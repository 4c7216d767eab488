"""The command line: what it prints, where it writes, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from engine_toy import Toy, toy_fixture  # noqa: F401

from harness import cli
from harness.cli import main

BASELINE = {"baseline": "shift(by=1)"}


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), prog_name="harness")


def modules_after(*command_lines: list[str]) -> set[str]:
    """The modules that one new process has imported after these command lines."""
    code = (
        "import sys\n"
        "from harness.cli import main\n"
        f"for arguments in {command_lines!r}:\n"
        "    try: main(arguments)\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "print('modules:', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("modules: ")[2].split())


LIBRARIES = {"torch", "transformers", "lm_eval", "datasets", "pandas", "sklearn"}
HEAVY = {*LIBRARIES, "scipy", "sqlalchemy", "pydantic"}


def test_help_imports_nothing_heavy() -> None:
    pages = [["--help"], ["--version"], *([name, "--help"] for name in main.commands)]
    assert not modules_after(*pages) & {*HEAVY, "numpy", "rich", "yaml"}


def test_lists_import_no_torch_unless_they_need_functions() -> None:
    assert not modules_after(["list", "suites"], ["list", "models"], ["list", "datasets"]) & LIBRARIES


def test_lists_of_functions_do_not_import_the_model_libraries() -> None:
    listed = modules_after(["list", "methods"], ["list", "metrics"], ["show", "magnitude"])
    assert not listed & (LIBRARIES - {"torch"})


def test_usage_errors_are_one_line() -> None:
    lines = [["frobnicate"], ["run"], ["run", "x", "--seeds", "many"], ["list", "things"], ["run", "x", "--k"]]
    for arguments in lines:
        result = harness(*arguments)
        assert result.exit_code == 2, arguments
        assert result.stderr.startswith("harness: ")
        assert result.stderr.count("\n") == 1, result.stderr
        assert result.stdout == ""


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.engine.suite.load_suite", interrupted)
    result = harness("run", "quickstart")
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: object) -> None:
        raise OSError(28, "No space left on device", "results/x")

    monkeypatch.setattr("harness.engine.suite.load_suite", full)
    result = harness("run", "quickstart")
    assert (result.exit_code, result.stderr) == (2, "harness: results/x: cannot be written: No space left on device\n")


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("harness.engine.suite.load_suite", broken)
    assert isinstance(harness("run", "quickstart").exception, OSError)


def test_run_writes_the_table_and_computes_nothing_twice(toy: Toy) -> None:
    suite = str(toy.write(**BASELINE))
    first = harness("run", suite)
    assert first.exit_code == 0, first.output
    files = [Path("results/toys") / f"table.{extension}" for extension in ("md", "csv", "json", "html", "tex")]
    assert all(file.is_file() for file in files)
    assert [f"wrote {file}" for file in files] == first.stdout.splitlines()[-5:]
    assert "6 run, 0 from the ledger, 0 failed" in first.stdout
    assert len(toy.runs()) == 6
    lines = [line for line in first.stderr.splitlines() if line.startswith("[")]
    assert len(lines) == 6
    assert lines[-1].startswith("[6/6, 0:00 left] ")

    tables = [file.read_text() for file in files]
    second = harness("run", suite)
    assert "0 run, 6 from the ledger, 0 failed" in second.stdout
    assert len(toy.runs()) == 6
    assert [file.read_text() for file in files] == tables


def test_run_json_prints_events_and_nothing_else(toy: Toy) -> None:
    result = harness("run", str(toy.write()), "--json", "--only", "shift(by=2)")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "plan"
    assert names.count("trial") == 2
    assert names[-2:] == ["end", "table"]
    assert result.stderr == ""


def test_a_run_of_part_of_a_suite_shows_what_is_missing(toy: Toy) -> None:
    result = harness("run", str(toy.write()), "--only", "shift(by=2)")
    assert result.exit_code == 0
    rows = json.loads(Path("results/toys/table.json").read_text())["tables"][0]["rows"]
    assert [row["values"]["seeds"] for row in rows] == ["0/2", "2/2", "0/2"]


def test_another_protocol_does_not_overwrite_the_suites_table(toy: Toy) -> None:
    suite = str(toy.write())
    assert harness("run", suite, "--limit", "2", "--seeds", "1", "--model", "two").exit_code == 0
    assert not Path("results/toys").exists()
    written = Path("results/local/toys-limit-2-model-two-seeds-1/table.md").read_text()
    assert "first 2 items" in written
    shown = harness("table", suite, "--limit", "2", "--seeds", "1", "--model", "two", "--format", "markdown")
    assert shown.stdout == written.rstrip("\n") + "\n"


def test_a_failed_trial_ends_with_1_and_is_in_the_table(toy: Toy) -> None:
    suite = str(toy.write(methods='[shift, "trouble(kind=fail)"]'))
    result = harness("run", suite)
    assert result.exit_code == 1
    assert "trouble(kind=fail) on one seed 1 failed" in result.stderr
    assert "s: it did not converge" in result.stderr
    rows = json.loads(Path("results/toys/table.json").read_text())["tables"][0]["rows"]
    assert [row["values"]["failed"] for row in rows] == ["0", "2"]
    assert "it did not converge" in Path("results/toys/table.md").read_text()
    again = harness("run", suite)
    assert again.exit_code == 1
    assert len(toy.runs()) == 4
    harness("run", suite, "--retry-failed")
    assert len(toy.runs()) == 6


def test_dry_run_writes_nothing(toy: Toy) -> None:
    before = sorted(toy.folder.rglob("*"))
    result = harness("run", str(toy.write(name="toys.yaml")), "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.count("to run  ") == 6
    assert result.stdout.endswith("6 to run\n")
    assert sorted(toy.folder.rglob("*")) == sorted([*before, toy.folder / "toys.yaml"])


def test_list_trials_and_show_one(toy: Toy) -> None:
    suite = str(toy.write(methods='[shift, "trouble(kind=error)"]', seeds="1"))
    harness("run", suite)
    trials = {one["method"]: one for one in map(json.loads, harness("list", "trials", "--json").stdout.splitlines())}
    assert {name: one["status"] for name, one in trials.items()} == {"shift": "ok", "trouble(kind=error)": "failed"}
    assert len(harness("list", "trials", "--status", "failed").stdout.splitlines()) == 1
    shown = harness("show", trials["trouble(kind=error)"]["trial"]).stdout
    assert "ZeroDivisionError" in shown
    assert "Traceback" in shown
    assert "has no trial" in harness("show", "0" * 64).stderr


def test_lists_can_be_cut_to_what_a_suite_uses(toy: Toy) -> None:
    suite = str(toy.write())
    assert harness("list", "methods").stdout.split()[0::5][:1] == ["noise"]
    used = harness("list", "methods", "--suite", suite, "--json").stdout.splitlines()
    assert [json.loads(line)["name"] for line in used] == ["noise", "shift"]
    everything = harness("list", "methods", "--json").stdout.splitlines()
    assert [json.loads(line)["name"] for line in everything] == ["noise", "shift", "trouble"]


def test_list_methods_gives_track_paper_and_summary() -> None:
    rows = {row["name"]: row for row in map(json.loads, harness("list", "methods", "--json").stdout.splitlines())}
    assert rows["magnitude"]["track"] == "compress"
    assert rows["magnitude"]["paper"] == "han2015learning"
    assert rows["magnitude"]["summary"].endswith(".")


def test_show_a_method() -> None:
    shown = harness("show", "random-mask").stdout
    assert shown.startswith("method random_mask\n")
    assert "sparsity: a number from 0.0 to 1.0 (default 0.5)" in shown
    fields = json.loads(harness("show", "magnitude", "--json").stdout)
    assert fields["bibtex"].startswith("@inproceedings{han2015learning,")
    assert fields["bibtex"].endswith("}")
    file, _, line = fields["implemented"].rpartition(":")
    assert "def magnitude" in "".join(Path(file).read_text().splitlines()[int(line) - 1 :][:2])


def test_show_gives_everything_of_that_name() -> None:
    kinds = [json.loads(line)["kind"] for line in harness("show", "synthetic-lm", "--json").stdout.splitlines()]
    assert kinds == ["model", "dataset"]


def test_show_suggests_the_nearest_name() -> None:
    result = harness("show", "magnitud")
    assert result.exit_code == 2
    assert "did you mean magnitude" in result.stderr


def test_doctor_says_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    found = json.loads(harness("doctor", "--json").stdout)
    assert found["cores"] >= 1
    assert "torch" in found["packages"]
    assert "hf download" in found["data mirror"]
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert "0 Parquet files" in harness("doctor").stdout
    assert list(tmp_path.iterdir()) == []


def test_every_command_has_a_help_page() -> None:
    for name in main.commands:
        result = harness(name, "--help")
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) > 3
    assert cli.main.name == "main"


def test_python_m_harness_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "harness", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("harness, version ")
