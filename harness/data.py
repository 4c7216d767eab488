"""The one dataset loader.

A dataset is named by a short name of suites/datasets.yaml or by its Hub id, with an optional configuration and split
(`wikitext2`, `blimp:wh_island`, `Salesforce/wikitext:wikitext-2-v1:test`). It is looked for in the folder
`$HARNESS_DATA` (`<org>/<name>/<config>/<split>.parquet`), then in the Hub's cache, then on the Hub. What was read is
hashed, and a file that no longer matches its folder's SHA256SUMS is refused.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from harness.errors import BadInput, nearest

if TYPE_CHECKING:
    import pyarrow as pa

CATALOG = Path(__file__).parent.parent / "suites" / "datasets.yaml"
HELD_OUT_PART = 20
"""One document in this many is held out, by a hash of its text, where the catalog asks for it."""


@dataclass(frozen=True)
class Source:
    """Where one split of a dataset comes from."""

    name: str
    id: str
    config: str
    split: str
    revision: str | None = None
    generator: str | None = None
    item_id: str | None = None
    text: str | None = None
    holdout: bool = False

    @property
    def title(self) -> str:
        usual = _catalog().get(self.name, {}).get("config", "default")
        return ":".join([self.name, self.split] if self.config == usual else [self.name, self.config, self.split])


@dataclass(frozen=True)
class Dataset:
    """One split, read: a pyarrow table, the hash of its content, and a stable id for every item."""

    source: Source
    table: pa.Table
    hash: str

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def id(self) -> str:
        return self.source.id

    @property
    def config(self) -> str:
        return self.source.config

    @property
    def split(self) -> str:
        return self.source.split

    @property
    def columns(self) -> list[str]:
        return list(self.table.column_names)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> list:
        """The values of one column; BadInput names the columns there are."""
        if name not in self.columns:
            raise BadInput(f"dataset {self.source.title} has no column {name!r}; {nearest(name, self.columns)}")
        return list(self.table.column(name).to_pylist())

    def ids(self) -> list[str]:
        """One name per item that does not depend on how many items are read: the catalog's id column, or the row."""
        if self.source.item_id and self.source.item_id in self.columns:
            values = [str(value) for value in self.column(self.source.item_id)]
            if "config" in self.columns:
                values = [f"{config}:{value}" for config, value in zip(self.column("config"), values, strict=True)]
            if len(set(values)) == len(values):
                return values
        return [f"{self.split}:{row}" for row in range(len(self))]


@functools.cache
def _catalog() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(CATALOG.read_text())


def names() -> list[str]:
    """The short names of the catalog."""
    return sorted(_catalog())


def describe(name: str) -> dict[str, Any]:
    """The catalog's entry for a short name."""
    if name not in _catalog():
        raise BadInput(f"unknown dataset {name!r}; {nearest(name, names())}")
    return {"name": name, **_catalog()[name]}


def locate(name: str, split: str | None = None) -> Source:
    """The source that a name stands for. Raises BadInput for an unknown name, configuration or split."""
    head, *rest = name.split(":")
    if len(rest) > 2:
        raise BadInput(f"dataset {name!r} has too many parts; write NAME[:CONFIG[:SPLIT]]")
    if head in _catalog():
        entry = _catalog()[head]
        splits = entry["splits"]
        if rest and rest[0] in splits and len(rest) == 1:
            rest, split = [], split or rest[0]
        config = rest[0] if rest else entry.get("config", "default")
        chosen = split or (rest[1] if len(rest) > 1 else splits[-1])
        if chosen not in splits:
            raise BadInput(f"dataset {head} has no split {chosen!r}; it has {', '.join(splits)}")
        keys = ("id", "revision", "generator", "item_id", "text", "holdout")
        return Source(head, config=config, split=chosen, **{"id": head, **{k: entry[k] for k in keys if k in entry}})
    if "/" not in head:
        raise BadInput(f"unknown dataset {name!r}; {nearest(head, names())} (or give a Hub id, org/name)")
    config = rest[0] if rest else "default"
    return Source(head, head, config, split or (rest[1] if len(rest) > 1 else "test"))


def load(name: str, *, split: str | None = None, limit: int | None = None) -> Dataset:
    """Read one split of a dataset.

    `limit` keeps the first items; the hash is that of the whole split. Raises BadInput where the data is missing
    (saying where it was looked for and how to get it) or no longer what its folder says it is.
    """
    source = locate(name, split)
    if source.generator:
        return _trim(Dataset(source, *_generate(source)), limit)
    files = _mirror_files(source)
    if files is None:
        table = _from_hub(source)
        digest = _table_hash(table)
    else:
        table = _read_files(files, source)
        digest = _files_hash(files)
    if source.holdout:
        table, digest = _hold_out(table, source), _split_hash(digest, source)
    return _trim(Dataset(source, table, digest), limit)


def content_hash(name: str, split: str | None = None) -> str:
    """The hash `load` would report, without decoding a mirrored file."""
    source = locate(name, split)
    files = None if source.generator else _mirror_files(source)
    if files is None:
        return load(name, split=split).hash
    digest = _files_hash(files)
    return _split_hash(digest, source) if source.holdout else digest


def held_out(text: str) -> bool:
    """Whether a document belongs to the held-out part: one in `HELD_OUT_PART`, by a hash of its text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % HELD_OUT_PART == 0


def _hold_out(table: pa.Table, source: Source) -> pa.Table:
    wanted = source.split == "heldout"
    return table.filter([held_out(text) == wanted for text in table.column(source.text or "text").to_pylist()])


def _split_hash(digest: str, source: Source) -> str:
    return hashlib.sha256(f"{digest}|{source.split}|1/{HELD_OUT_PART}".encode()).hexdigest()


def _trim(dataset: Dataset, limit: int | None) -> Dataset:
    return dataset if limit is None else replace(dataset, table=dataset.table.slice(0, limit))


def _mirror() -> Path | None:
    where = os.environ.get("HARNESS_DATA")
    if where and not Path(where).is_dir():
        raise BadInput(f"HARNESS_DATA={where} is not a folder; unset it or point it at a data mirror")
    return Path(where) if where else None


def _mirror_files(source: Source) -> list[Path] | None:
    """The mirrored files of a split (several for configuration `*`), or None where the mirror has not got it."""
    root = _mirror()
    if root is None:
        return None
    split = "train" if source.holdout else source.split
    files = sorted((root / source.id).glob(f"{source.config}/{split}.parquet"))
    for file in files:
        _verify(root, file)
    return files or None


def _verify(root: Path, file: Path) -> None:
    expected = _manifest(root).get(file.relative_to(root).as_posix())
    actual = _file_hash(file)
    if expected and actual != expected:
        raise BadInput(
            f"{file}: its content has changed: sha256 {actual[:12]}, but SHA256SUMS says {expected[:12]}; "
            "restore the file, or correct SHA256SUMS if the change is meant"
        )


@functools.cache
def _manifest(root: Path) -> dict[str, str]:
    path = root / "SHA256SUMS"
    if not path.is_file():
        return {}
    pairs = (line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip())
    return {name.strip().lstrip("*").removeprefix("./"): digest for digest, name in pairs}


def _file_hash(file: Path) -> str:
    stat = file.stat()
    return _hash_once(file, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _hash_once(file: Path, size: int, mtime: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files_hash(files: Sequence[Path]) -> str:
    if len(files) == 1:
        return _file_hash(files[0])
    return hashlib.sha256("".join(_file_hash(file) for file in files).encode()).hexdigest()


def _read_files(files: Sequence[Path], source: Source) -> pa.Table:
    import pyarrow as pa
    from pyarrow import parquet

    tables = []
    for file in files:
        try:
            table = parquet.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise BadInput(f"{file}: cannot be read as Parquet: {error}") from error
        if source.config == "*":
            table = table.append_column("config", pa.array([file.parent.name] * table.num_rows))
        tables.append(table)
    return pa.concat_tables(tables)


def _table_hash(table: pa.Table) -> str:
    """Hash of the values alone, so that neither the file format nor a library's version is part of it."""
    digest = hashlib.sha256()
    for name in table.column_names:
        digest.update(f"|{name}|".encode())
        for chunk in table.column(name).chunks:
            digest.update("".join(map(repr, chunk.to_pylist())).encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=8)
def _generate(source: Source) -> tuple[pa.Table, str]:
    """A split that a function makes, and its hash. Kept: one trial asks for the same split several times, and to make
    and hash it was seven eighths of the time in which a small problem is built."""
    module, _, function = str(source.generator).partition(":")
    table = getattr(importlib.import_module(module), function)(source.split)
    return table, _table_hash(table)


def _from_hub(source: Source) -> pa.Table:
    """The split from the Hub's cache or the Hub, through the `datasets` library."""
    place = f"{source.id}/{source.config}/{source.split}.parquet"
    where = f"the mirror ($HARNESS_DATA/{place})" if _mirror() else "a mirror (HARNESS_DATA is not set)"
    if source.id.partition("/")[0] in ("local", "uci"):
        raise BadInput(
            f"dataset {source.title} is not at hand: looked in {where}; the Hub has none of that name: "
            f"set HARNESS_DATA to a mirror that has {place}"
        )
    advice = f"get it with: hf download --repo-type dataset {source.id}; or set HARNESS_DATA to a mirror's folder"
    try:
        return _load_hub(source)
    except Exception as error:  # the library raises a different error for each way of not having the data
        looked = f"looked in {where}, the Hub's cache and the Hub ({type(error).__name__})"
        raise BadInput(f"dataset {source.title} is not at hand: {looked}; {advice}") from error


def _load_hub(source: Source) -> pa.Table:
    from datasets import concatenate_datasets, get_dataset_config_names, load_dataset
    from datasets.utils import logging

    logging.disable_progress_bar()
    split = "train" if source.holdout else source.split
    if source.config != "*":
        config = None if source.config == "default" else source.config
        return load_dataset(source.id, config, split=split, revision=source.revision).data.table
    configs = sorted(get_dataset_config_names(source.id, revision=source.revision))
    parts = []
    for config in configs:
        part = load_dataset(source.id, config, split=split, revision=source.revision)
        parts.append(part.add_column("config", [config] * len(part)))
    return concatenate_datasets(parts).data.table
