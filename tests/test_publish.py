"""`harness publish` and `harness import`: the bundle alone gives the same ids and digits; a changed one is refused."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from engine_toy import Toy, toy_fixture  # noqa: F401
from pyarrow import parquet
from table_samples import (
    fill,
    quick_fixture,  # noqa: F401
)

from harness.cli import main
from harness.engine.ledger import open_ledger
from harness.engine.plan import digest
from harness.tables import FORMATS, render
from harness.tables.build import tabulate
from harness.tables.bundle import import_bundle, publish

pytestmark = pytest.mark.usefixtures("quick")

FILES = ["records.parquet", "scores.parquet", "items.parquet", "environments.json", "suite.yaml", "references.bib",
         "manifest.json"]  # fmt: skip


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), prog_name="harness")


@pytest.fixture
def bundle(toy: Toy) -> Path:
    """A published suite with a failed and a missing trial."""
    failed, missing = "shift(by=2, twice=True) on one seed 1", "shift(by=1, twice=True) on one seed 2"
    scope, ledger = fill(toy, fail=(failed,), skip=(missing,), place=lambda trial: {"cpu": "A", "seed": trial.seed % 2})
    with closing(ledger):
        publish(scope, ledger, toy.folder / "bundle")
    return toy.folder / "bundle"


def test_a_bundle_holds_tables_records_and_a_manifest(toy: Toy, bundle: Path) -> None:
    names = [f"table.{form.extension}" for form in FORMATS.values()] + FILES
    assert sorted(path.name for path in bundle.iterdir()) == sorted(names)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert set(manifest["files"]) == {name for name in names if name != "manifest.json"}
    assert manifest["records"] == 11
    rows = parquet.read_table(bundle / "records.parquet").to_pylist()
    assert len(rows) == 11
    assert "traceback" not in rows[0]
    assert len(parquet.read_table(bundle / "items.parquet")) == 1
    assert len(parquet.read_table(bundle / "scores.parquet")) == 20


def test_the_same_table_comes_out_of_the_bundle_alone(toy: Toy, bundle: Path) -> None:
    result = harness("import", "bundle", "--ledger", "other.db")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("toys: 11 records entered into other.db, 0 were there already")
    for form in ("markdown", "latex", "json"):
        printed = harness("table", "bundle/suite.yaml", "--format", form, "--ledger", "other.db").output
        published = (bundle / f"table.{FORMATS[form].extension}").read_text()
        assert printed.replace("bundle/suite.yaml", "toys.yaml").rstrip("\n") == published.rstrip("\n")
    assert harness("verify", "bundle/table.tex", "--ledger", "other.db").exit_code == 0


def test_importing_twice_changes_nothing(toy: Toy, bundle: Path) -> None:
    harness("import", "bundle/manifest.json", "--ledger", "other.db")
    result = harness("import", "bundle", "--ledger", "other.db", "--json")
    done = json.loads(result.output)
    assert (done["new"], done["known"], done["differing"]) == (0, 11, [])


def test_a_newer_record_keeps_its_place(toy: Toy, bundle: Path) -> None:
    """Two versions of the method have two records for one cell of the suite."""
    with closing(open_ledger("other.db")) as ledger, closing(open_ledger("ledger.db", write=False)) as source:
        (old,) = [one for one in source.records() if one.seed == 0 and one.params == {"by": 1, "twice": False}]
        newer = replace(old, hash="f" * 64, version="newer", created=old.created + 60)
        ledger.save(newer, {label: source.scores(old, label) for label in old.metrics}, suite="toys")  # type: ignore[misc]
        assert import_bundle(bundle, ledger).new == 11
        held = {record.cell: record.hash for record in ledger.records(suite="toys")}
        assert held[old.cell] == newer.hash
        assert ledger.get(old.hash) is not None


def test_other_figures_for_a_known_trial_are_told_and_not_taken(toy: Toy, bundle: Path) -> None:
    with closing(open_ledger("other.db")) as ledger, closing(open_ledger("ledger.db", write=False)) as source:
        (old,) = [one for one in source.records() if one.seed == 0 and one.params == {"by": 1, "twice": False}]
        metrics = {**old.metrics, "error": {**old.metrics["error"], "value": 7.0}}
        ledger.save(replace(old, metrics=metrics), {}, suite="toys")
        done = import_bundle(bundle, ledger)
        assert (done.new, done.known, done.differing) == (10, 1, [old.hash])
        kept = ledger.get(old.hash)
        assert kept is not None
        assert kept.metrics["error"]["value"] == 7.0


@pytest.mark.parametrize("name", [*FILES[:-1], "table.tex"])
def test_a_changed_file_is_refused_by_name(toy: Toy, bundle: Path, name: str) -> None:
    path = bundle / name
    body = bytearray(path.read_bytes() or b"x")
    body[len(body) // 2] ^= 1
    path.write_bytes(bytes(body))
    result = harness("import", "bundle", "--ledger", "other.db")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert f"bundle/{name}: was changed after it was published" in result.stderr
    assert not Path("other.db").exists()


def test_a_changed_manifest_is_refused(toy: Toy, bundle: Path) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["records"] = 12
    path.write_text(json.dumps(manifest))
    assert "manifest.json: was changed" in harness("import", "bundle", "--ledger", "other.db").stderr


def test_a_forged_record_makes_another_id(toy: Toy, bundle: Path) -> None:
    """Whoever rewrites the manifest as well gets a bundle that can be read, but not the table that was cited."""
    path = bundle / "scores.parquet"
    sheet = parquet.read_table(path)
    rows = sheet.to_pylist()
    rows[0]["values"][0] += 1
    parquet.write_table(pa.Table.from_pylist(rows, schema=sheet.schema), path)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest.pop("digest")
    import hashlib

    manifest["files"]["scores.parquet"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "digest": digest(manifest)}))
    assert harness("import", "bundle", "--ledger", "other.db").exit_code == 0
    result = harness("verify", "bundle/table.md", "--ledger", "other.db")
    assert result.exit_code == 2
    assert "unknown table" in result.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "items.parquet").unlink(), "items.parquet: is missing from the bundle"),
        (lambda folder: (folder / "manifest.json").unlink(), "bundle: is no bundle"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json: is no manifest of a bundle"),
    ],
)
def test_what_is_no_bundle_is_one_line(toy: Toy, bundle: Path, change, says: str) -> None:  # type: ignore[no-untyped-def]
    change(bundle)
    result = harness("import", "bundle", "--ledger", "other.db")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert says in result.stderr


def test_nothing_to_publish_is_one_line(toy: Toy) -> None:
    fill(toy)[1].close()
    result = harness("publish", "toys.yaml", "--limit", "3", "--ledger", "ledger.db")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "has no record of suite toys; `harness run toys.yaml --limit 3` makes them" in result.stderr
    assert not Path("results").exists()


def test_records_of_two_groups_come_into_one_table(toy: Toy) -> None:
    """One group ran the first method rows, another the second: the table has both."""
    labels = [f"shift(by={by}{twice}) on one seed {seed}" for by in (1, 2) for twice in ("", ", twice=True")
              for seed in range(3)]  # fmt: skip
    for group, skipped in enumerate((labels[:6], labels[6:])):
        scope, ledger = fill(toy, skip=tuple(skipped))
        with closing(ledger):
            publish(scope, ledger, toy.folder / f"group{group}")
        (toy.folder / "ledger.db").unlink()
    scope, ledger = fill(toy)
    with closing(ledger):
        whole = render(tabulate(scope, ledger), "csv")
    for group in range(2):
        assert harness("import", f"group{group}", "--ledger", "both.db").exit_code == 0
    with closing(open_ledger("both.db", write=False)) as ledger:
        assert render(tabulate(scope, ledger), "csv") == whole
