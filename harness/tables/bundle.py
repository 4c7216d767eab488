"""Published results: a suite's tables with the records they were made of, so that anyone can recompute them.

A bundle is a folder. `manifest.json` lists every file with its sha256, the tables' ids, and a hash of itself.
`records.parquet` has a row a trial (nested fields as JSON text), `scores.parquet` the per-item scores of each of its
metrics, `items.parquet` what the items are, once for all rows that share them, `environments.json` what the trials ran
on. Tracebacks are left out: they name places on somebody's machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

import harness
from harness.engine import schema
from harness.engine.ledger import Ledger
from harness.engine.plan import canonical, digest
from harness.engine.record import Record
from harness.errors import BadInput
from harness.scores import Scores
from harness.tables.bibliography import references
from harness.tables.build import tabulate
from harness.tables.model import Table
from harness.tables.scope import Scope, collect
from harness.tables.writers import write_files, write_whole

FORMAT, VERSION = "harness-bundle", 1
MANIFEST, RECORDS, SCORES, ITEMS, ENVIRONMENTS = (
    "manifest.json", "records.parquet", "scores.parquet", "items.parquet", "environments.json",
)  # fmt: skip
BATCH = 200
"""Records whose scores are held at once."""
_PLAIN = {"seed": pa.int64(), "limit": pa.int64(), "created": pa.float64()}
_TEXT = {"hash", "cell", "track", "method", "version", "model", "status", "reason", "environment"}
_NUMBERS, _WORDS = pa.list_(pa.float64()), pa.list_(pa.string())
_SCORES = pa.schema([("hash", pa.string()), ("metric", pa.string()), ("items", pa.string()), ("values", _NUMBERS)])
_ITEMS = pa.schema(
    [("hash", pa.string()), ("ids", _WORDS), ("blocks", _WORDS), ("weights", _NUMBERS), ("targets", _NUMBERS)]
)


# Publishing


def publish(scope: Scope, ledger: Ledger, folder: Path) -> list[Path]:
    """Write the bundle of a suite's tables into a folder. The manifest goes first and comes last: a bundle that was
    not finished has none. Raises BadInput where there is no record to publish."""
    found = collect(scope, ledger)
    records = [record for _, row in sorted(found.items()) for record in row.values()]
    if not records:
        raise BadInput(f"ledger {ledger.name}: has no record of suite {scope.suite.name}; `{scope.command}` makes them")
    (folder / MANIFEST).unlink(missing_ok=True)
    tables = tabulate(scope, ledger)
    paths = write_files(tables, folder)
    paths += _write_records(records, ledger, folder)
    places = {one: ledger.environment(one) for one in dict.fromkeys(record.environment for record in records)}
    metrics = [call.name for problem in scope.problems for call in problem.metrics]
    entries, _ = references([point.method for point in scope.points], metrics, scope.suite.track)
    for name, text in (
        (ENVIRONMENTS, json.dumps(places, indent=1, sort_keys=True)),
        ("suite.yaml", scope.suite.path.read_text(encoding="utf-8")),
        ("references.bib", "\n\n".join(entries)),
    ):
        paths.append(folder / name)
        write_whole(paths[-1], text.rstrip("\n") + "\n")
    write_whole(folder / MANIFEST, json.dumps(_manifest(scope, tables, len(records), paths), indent=1) + "\n")
    return [*paths, folder / MANIFEST]


def _manifest(scope: Scope, tables: list[Table], records: int, paths: Iterable[Path]) -> dict[str, Any]:
    body = {
        "format": FORMAT,
        "version": VERSION,
        "suite": scope.suite.name,
        "command": scope.command,
        "tables": {table.title: table.citation.id for table in tables if table.citation},
        "records": records,
        "harness": harness.__version__,
        "files": {path.name: _sha256(path) for path in sorted(paths)},
    }
    return {**body, "digest": digest(body)}


def _write_records(records: list[Record], ledger: Ledger, folder: Path) -> list[Path]:
    paths = [folder / name for name in (RECORDS, SCORES, ITEMS)]
    known: set[str] = set()
    with ExitStack() as stack:
        sheets = [
            stack.enter_context(parquet.ParquetWriter(path, form, compression="zstd"))
            for path, form in zip(paths, (_record_schema(), _SCORES, _ITEMS), strict=True)
        ]
        for start in range(0, len(records), BATCH):
            rows: tuple[list[dict], list[dict], list[dict]] = ([], [], [])
            for record in records[start : start + BATCH]:
                rows[0].append(_row(record))
                _add_scores(record, ledger, known, rows[1], rows[2])
            for sheet, some in zip(sheets, rows, strict=True):
                if some:
                    sheet.write_table(pa.Table.from_pylist(some, schema=sheet.schema))
    return paths


def _add_scores(record: Record, ledger: Ledger, known: set[str], scores: list[dict], items: list[dict]) -> None:
    for metric in record.metrics:
        taken = ledger.scores(record, metric)
        if taken is None:
            continue
        identity, text = schema.item_set(taken)
        scores.append({"hash": record.hash, "metric": metric, "items": identity, "values": taken.values})
        if identity not in known:
            known.add(identity)
            items.append({"hash": identity, **json.loads(text)})


def _fields() -> list[str]:
    return [one.name for one in dataclasses.fields(Record) if one.name != "traceback"]


def _record_schema() -> pa.Schema:
    return pa.schema([(name, _PLAIN.get(name, pa.string())) for name in _fields()])


def _row(record: Record) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in _fields()}
    return {name: value if name in _PLAIN or name in _TEXT else canonical(value) for name, value in values.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# Importing


@dataclass(frozen=True)
class Imported:
    """What became of a bundle's records: new ones, those the ledger had already, and of these the ones whose figures
    differ (the ledger's are kept)."""

    suite: str
    tables: dict[str, str]
    new: int = 0
    known: int = 0
    differing: list[str] = field(default_factory=list)


def import_bundle(folder: Path, ledger: Ledger) -> Imported:
    """Enter a bundle's records into a ledger. Nothing is written unless every file is as it was published.

    A cell of the suite that the ledger fills with a newer record keeps it. Raises BadInput, naming the file, for a
    folder that is no bundle and for one that was changed.
    """
    folder = folder.parent if folder.name == MANIFEST else folder
    manifest = read_manifest(folder)
    places = _environments(folder)
    items = {row.pop("hash"): row for row in _rows(folder / ITEMS)}
    suite = manifest["suite"]
    newest = {record.cell: record for record in ledger.records(suite=suite)}
    result = Imported(suite, manifest["tables"])
    for place, body in places.items():
        ledger.add_environment(place, body)
    for record, rows in _with_scores(folder):
        taken = {
            row["metric"]: schema.restore(row["values"], items[row["items"]], record.metrics[row["metric"]])
            for row in rows
        }
        result = _enter(record, taken, result, ledger, newest)
    return result


def _enter(
    record: Record, scores: Mapping[str, Scores], result: Imported, ledger: Ledger, newest: Mapping[str, Record]
) -> Imported:
    there = ledger.get(record.hash)
    if there is None:
        ledger.save(record, scores, suite=result.suite)
        result = replace(result, new=result.new + 1)
    else:
        differs = there.metrics != record.metrics
        result = replace(
            result, known=result.known + 1, differing=[*result.differing, *([record.hash] if differs else [])]
        )
    holder = newest.get(record.cell)
    kept = holder.hash if holder is not None and holder.created > record.created else record.hash
    ledger.enroll(result.suite, [(record.cell, kept)])
    return result


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle whose files are all as it says. Raises BadInput that names the file that is not."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError
    except OSError:
        raise BadInput(f"{folder}: is no bundle (it has no {MANIFEST}); `harness publish SUITE` makes one") from None
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{path}: is no manifest of a bundle") from None
    if manifest.get("version", 0) > VERSION:
        raise BadInput(f"{path}: was written by a newer version; update the harness")
    if manifest.pop("digest", None) != digest(manifest):
        raise BadInput(f"{path}: was changed after it was published (its own hash does not fit)")
    for name, expected in manifest["files"].items():
        file = folder / Path(name).name
        if not file.is_file():
            raise BadInput(f"{file}: is missing from the bundle")
        if _sha256(file) != expected:
            raise BadInput(f"{file}: was changed after it was published (its sha256 is not the manifest's)")
    for name in (RECORDS, SCORES, ITEMS, ENVIRONMENTS):
        if name not in manifest["files"]:
            raise BadInput(f"{path}: lists no {name}; it is no complete bundle")
    return manifest


def _environments(folder: Path) -> dict[str, dict[str, Any]]:
    return json.loads((folder / ENVIRONMENTS).read_text(encoding="utf-8"))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with parquet.ParquetFile(path) as sheet:
        for batch in sheet.iter_batches(batch_size=BATCH):
            yield from batch.to_pylist()


def _with_scores(folder: Path) -> Iterator[tuple[Record, list[dict[str, Any]]]]:
    """Every record with the rows of its scores; both files are in one order, so neither is held."""
    groups = itertools.groupby(_score_rows(folder / SCORES), key=lambda row: row["hash"])
    trial, rows = next(groups, (None, iter(())))
    for record in map(_record, _rows(folder / RECORDS)):
        if record.hash == trial:
            yield record, list(rows)
            trial, rows = next(groups, (None, iter(())))
        else:
            yield record, []


def _score_rows(path: Path) -> Iterator[dict[str, Any]]:
    with parquet.ParquetFile(path) as sheet:
        for batch in sheet.iter_batches(batch_size=BATCH):
            for *words, values in zip(*map(batch.column, _SCORES.names), strict=True):
                trial, metric, items = (word.as_py() for word in words)
                yield {"hash": trial, "metric": metric, "items": items, "values": values.values.to_numpy()}


def _record(row: dict[str, Any]) -> Record:
    known = {one.name for one in dataclasses.fields(Record)}
    return Record(
        **{
            name: value if name in _PLAIN or name in _TEXT else json.loads(value)
            for name, value in row.items()
            if name in known
        }
    )
