"""The ledger: the store of records, their per-item scores, and of who is working on which trial.

One SQLite file in WAL mode by default; any URL that SQLAlchemy takes otherwise. A trial is written in one transaction
when it ends, so a process killed at any moment loses nothing that was finished. Reads are streamed.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url

from harness.engine import schema
from harness.engine.owner import is_alive
from harness.engine.plan import canonical
from harness.engine.record import Record
from harness.errors import BadInput
from harness.scores import Scores

DEFAULT = Path("results/local/ledger.db")
LEASE_SECONDS = 120.0
"""A lease whose owner has not been heard of for this long is free again (at once, if it ran here and is dead)."""
BATCH = 500
WRITER_LOCK = 0x6861726E657373
"""The advisory lock of PostgreSQL that writers of ledgers take; any fixed number (here the word "harness")."""

T = TypeVar("T")


class NoLedger(BadInput):
    """There is no ledger to read yet."""


def open_ledger(url: str | None = None, *, write: bool = True) -> Ledger:
    """Open the ledger at a path or URL; the default is `$HARNESS_LEDGER`, then results/local/ledger.db.

    For writing, a ledger that does not exist is created. Raises BadInput when what is there is no ledger, was written
    by a newer version, or cannot be read (or written, if asked for).
    """
    where = url or os.environ.get("HARNESS_LEDGER") or str(DEFAULT)
    try:
        parsed = make_url(where) if "://" in where else URL.create("sqlite", database=where)
        name = where if parsed.password is None else parsed.render_as_string(hide_password=True)
        if parsed.get_backend_name() == "sqlite":
            parsed = _sqlite_file(parsed, name, write)
        elif parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        engine = sql.create_engine(parsed, json_serializer=canonical)
    except (sql.exc.ArgumentError, sql.exc.NoSuchModuleError, ValueError):
        shown = where if "@" not in where else f"{where.partition('://')[0]}://..."
        raise BadInput(f"ledger {shown}: give the path of an SQLite file or a database URL") from None
    except ModuleNotFoundError as error:
        how = "; pip install 'nn-harness[postgres]'" if error.name == "psycopg" else ""
        raise BadInput(f"ledger {name}: needs the Python package {error.name}, which is not installed{how}") from None
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    elif engine.dialect.name == "postgresql":
        _prepare_postgresql(engine)
    ledger = Ledger(engine, name)
    ledger._open(write)
    return ledger


def _sqlite_file(url: URL, name: str, write: bool) -> URL:
    """The URL to open an SQLite file by: made where it may be, read-only where nothing will be written."""
    if not url.database or url.database == ":memory:" or url.query:
        return url
    path = Path(url.database)
    if path.is_dir():
        raise BadInput(f"ledger {name}: is a folder; give the path of a file")
    if write:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"ledger {name}: its folder cannot be made: {error.strerror}") from None
        return url
    if not path.exists():
        raise NoLedger(f"ledger {name}: no such file; `harness run SUITE` makes one")
    # Readers of a WAL file share memory through a file beside it; where that cannot be made, nobody is writing.
    query = {"uri": "true", "mode": "ro"} | ({} if os.access(path.parent, os.W_OK) else {"immutable": "1"})
    return URL.create("sqlite", database=f"file:{quote(str(path.absolute()))}", query=query)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Lists of at most `BATCH` items: a statement takes only so many values."""
    stream = iter(items)
    while batch := list(itertools.islice(stream, BATCH)):
        yield batch


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        # The driver would begin transactions late and by its own rules; `begin` below does it instead.
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout = 60000")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_postgresql(engine: Engine) -> None:
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # One writer at a time, as in SQLite: what a claim has read still holds when it writes.
        if connection.get_execution_options().get("writes"):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")


_REASONS = {
    "file is not a database": "is not a ledger (it is no SQLite file)",
    "malformed": "is damaged: {detail}",
    "readonly database": "is read-only; make it writable or give another with --ledger",
    "database or disk is full": "the disk is full; free space and run again, nothing finished was lost",
    "disk i/o error": "cannot be written: {detail} (is the disk full?)",
    "unable to open": "cannot be opened; check that its folder exists and may be written",
    "locked": "is locked by another program",
}


class Ledger:
    """An open ledger. Every method raises BadInput, in one line, when the store fails."""

    def __init__(self, engine: Engine, name: str):
        self.engine = engine
        self.name = name
        self._items = functools.lru_cache(maxsize=16)(self._load_items)

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _connect(self, *, writes: bool = False) -> Iterator[Connection]:
        """A connection inside one transaction."""
        try:
            with self.engine.connect().execution_options(writes=writes) as connection, connection.begin():
                yield connection
        except sql.exc.DBAPIError as error:
            detail = str(error.orig).strip().partition("\n")[0]
            found = next((text for sign, text in _REASONS.items() if sign in detail.lower()), "{detail}")
            raise BadInput(f"ledger {self.name}: {found.format(detail=detail)}") from error

    def _open(self, write: bool) -> None:
        with self._connect() as connection:
            tables = set(sql.inspect(connection).get_table_names())
        if not tables and write:
            self._create()
        elif not tables and self.engine.dialect.name != "sqlite":
            raise NoLedger(f"ledger {self.name}: the database is empty; `harness run SUITE` makes a ledger in it")
        elif "meta" not in tables:
            raise BadInput(f"ledger {self.name}: is not a ledger (a database of something else)")
        with self._connect() as connection:
            found = {row.key: row.value for row in connection.execute(sql.select(schema.meta))}
        if found.get("format") != schema.FORMAT:
            raise BadInput(f"ledger {self.name}: is not a ledger (a database of something else)")
        version = int(found["version"])
        if version > schema.VERSION:
            raise BadInput(
                f"ledger {self.name}: was written by a newer version (its tables have version {version}, "
                f"this program reads up to {schema.VERSION}); update the harness or give another with --ledger"
            )
        if version < schema.VERSION:
            self._upgrade(version, write)
        if write:
            with self._connect(writes=True) as connection:
                connection.execute(sql.delete(schema.leases).where(schema.leases.c.beat < time() - 10 * LEASE_SECONDS))

    @property
    def state(self) -> Path | None:
        """The folder beside an SQLite ledger where trials keep the state of unfinished trainings; None elsewhere."""
        url = self.engine.url
        file = url.database if url.get_backend_name() == "sqlite" and not url.query else None
        return Path(f"{file}.state") if file and file != ":memory:" else None

    def _upgrade(self, version: int, write: bool) -> None:
        """Give the tables of an older version what they lack; its records stay as they are."""
        if not write:
            raise BadInput(
                f"ledger {self.name}: was written by an older version (its tables have version {version}, this program "
                f"reads {schema.VERSION}); any `harness run` on it brings it up to date"
            )
        entry = schema.meta.c.key == "version"
        with self._connect(writes=True) as connection:
            version = int(connection.execute(sql.select(schema.meta.c.value).where(entry)).scalar_one())
            for since, statement in schema.UPGRADES:
                if since > version:  # another process may have upgraded it meanwhile
                    connection.exec_driver_sql(statement)
            connection.execute(sql.update(schema.meta).where(entry).values(value=str(schema.VERSION)))

    def _create(self) -> None:
        if self.engine.dialect.name == "sqlite":
            try:
                with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            except sql.exc.DBAPIError:
                pass  # another process is making the same ledger, or it cannot be written, which is told next
        with self._connect(writes=True) as connection:
            schema.metadata.create_all(connection)
            rows = [{"key": "format", "value": schema.FORMAT}, {"key": "version", "value": str(schema.VERSION)}]
            connection.execute(self._insert(schema.meta).on_conflict_do_nothing(), rows)

    def _insert(self, table: sql.Table) -> Any:
        """An INSERT that knows ON CONFLICT, in the dialect of this store."""
        return (postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert)(table)

    # Records

    def statuses(self, hashes: Iterable[str]) -> dict[str, tuple[str, float]]:
        """(status, time created) of those of the trials that have a record."""
        columns = schema.records.c
        found: dict[str, tuple[str, float]] = {}
        with self._connect() as connection:
            for batch in _batches(hashes):
                query = sql.select(columns.hash, columns.status, columns.created).where(columns.hash.in_(batch))
                found |= {row.hash: (row.status, row.created) for row in connection.execute(query)}
        return found

    def get(self, trial: str) -> Record | None:
        """The record of a trial's hash."""
        return next(self.records(hashes=[trial]), None)

    def records(
        self,
        *,
        suite: str | None = None,
        method: str | None = None,
        model: str | None = None,
        status: str | None = None,
        hashes: Iterable[str] | None = None,
        brief: bool = False,
    ) -> Iterator[Record]:
        """Records that fit all that is given, streamed: a suite's in the order it was filled in.

        `brief` leaves out what can be long: tracebacks, logs, metrics and sizes are then empty.
        """
        long = ("traceback", "log", "metrics", "size") if brief else ()
        query = sql.select(*(column for column in schema.records.columns if column.name not in long))
        if suite is not None:
            members = schema.members.c
            query = query.join(schema.members, members.hash == schema.records.c.hash)
            query = query.where(members.suite == suite).order_by(members.number)
        for name, value in (("method", method), ("model", model), ("status", status)):
            if value is not None:
                query = query.where(schema.records.c[name] == value)
        parts = [query] if hashes is None else (query.where(schema.records.c.hash.in_(b)) for b in _batches(hashes))
        with self._connect() as connection:
            for part in parts:
                for row in connection.execution_options(yield_per=BATCH).execute(part):
                    fields = dict(row._mapping)
                    yield Record(limit=fields.pop("item_limit"), **fields)

    def suites(self) -> dict[str, int]:
        """How many records each suite has."""
        members = schema.members.c
        with self._connect() as connection:
            query = sql.select(members.suite, sql.func.count().label("size")).group_by(members.suite)
            return {row.suite: row.size for row in connection.execute(query)}

    def scores(self, record: Record, metric: str) -> Scores | None:
        """The per-item scores of one of the record's metrics, by its label."""
        return self.scores_of([record], metric).get(record.hash)

    def scores_of(self, records: Iterable[Record], metric: str) -> dict[str, Scores]:
        """The per-item scores of one metric of several records, by their hashes, where there are any."""
        summaries = {record.hash: record.metrics.get(metric) for record in records}
        columns = schema.scores.c
        query = sql.select(columns.hash, columns.item_set, columns.item_values).where(columns.metric == metric)
        with self._connect() as connection:
            rows = [
                row for batch in _batches(summaries) for row in connection.execute(query.where(columns.hash.in_(batch)))
            ]
        return {
            row.hash: schema.restore(schema.unpack_array(row.item_values), self._items(row.item_set), summary)
            for row in rows
            if (summary := summaries[row.hash]) is not None
        }

    def _load_items(self, digest: str) -> dict[str, Any]:
        with self._connect() as connection:
            body = connection.execute(
                sql.select(schema.item_sets.c.body).where(schema.item_sets.c.hash == digest)
            ).scalar_one()
        return json.loads(zlib.decompress(body))

    def environment(self, digest: str) -> dict[str, Any]:
        """What a record's environment hash stands for."""
        with self._connect() as connection:
            query = sql.select(schema.environments.c.body).where(schema.environments.c.hash == digest)
            return connection.execute(query).scalar() or {}

    def add_environment(self, digest: str, body: Mapping[str, Any]) -> None:
        with self._connect(writes=True) as connection:
            insert = self._insert(schema.environments).values(hash=digest, body=body)
            connection.execute(insert.on_conflict_do_nothing())

    def save(self, record: Record, scores: Mapping[str, Scores], *, suite: str) -> None:
        """Write a trial that ended, in place of what it left before, and give its lease back: one transaction."""
        fields = {column.name: getattr(record, column.name, None) for column in schema.records.columns}
        fields["item_limit"] = record.limit
        # PostgreSQL cannot hold the character.
        fields |= {"reason": record.reason.replace("\0", ""), "traceback": record.traceback.replace("\0", "")}
        with self._connect(writes=True) as connection:
            for table in (schema.scores, schema.records, schema.leases):
                connection.execute(sql.delete(table).where(table.c.hash == record.hash))
            connection.execute(sql.insert(schema.records).values(**fields))
            for metric, taken in scores.items():
                self._save_scores(connection, record.hash, metric, taken)
            self._enroll(connection, suite, [(record.cell, record.hash)])

    @contextmanager
    def bulk(self) -> Iterator[Callable[[sql.Table, list[dict[str, Any]]], None]]:
        """A function that writes rows to one of the ledger's tables, all in one transaction: for imports. Rows whose
        key is there already are left out."""
        with self._connect(writes=True) as connection:

            def write(table: sql.Table, rows: list[dict[str, Any]]) -> None:
                if rows:
                    connection.execute(self._insert(table).on_conflict_do_nothing(), rows)

            yield write

    def _save_scores(self, connection: Connection, trial: str, metric: str, taken: Scores) -> None:
        digest, text = schema.item_set(taken)
        known = sql.select(schema.item_sets.c.hash).where(schema.item_sets.c.hash == digest)
        if connection.execute(known).first() is None:
            insert = self._insert(schema.item_sets).values(hash=digest, count=len(taken.ids), body=zlib.compress(text))
            connection.execute(insert.on_conflict_do_nothing())
        values = schema.pack_array(taken.values)
        row = {"hash": trial, "metric": metric, "item_set": digest, "item_values": values}
        connection.execute(sql.insert(schema.scores).values(**row))

    def enroll(self, suite: str, cells: Iterable[tuple[str, str]]) -> None:
        """Fill cells of a suite with records that are there already: (cell, trial hash) each."""
        for batch in _batches(cells):
            with self._connect(writes=True) as connection:
                self._enroll(connection, suite, batch)

    def _enroll(self, connection: Connection, suite: str, cells: Iterable[tuple[str, str]]) -> None:
        insert = self._insert(schema.members)
        insert = insert.on_conflict_do_update(index_elements=["suite", "cell"], set_={"hash": insert.excluded.hash})
        connection.execute(insert, [{"suite": suite, "cell": cell, "hash": trial} for cell, trial in cells])

    # Leases

    def claim(self, trial: str, owner: str, *, since: float | None = None) -> Literal["mine", "busy", "done"]:
        """Take a trial to work on. `done`: it has a record (one made at or after `since`, when that is given);
        `busy`: a living owner has it."""
        leases, records = schema.leases.c, schema.records.c
        with self._connect(writes=True) as connection:
            created = connection.execute(sql.select(records.created).where(records.hash == trial)).scalar()
            if created is not None and (since is None or created >= since):
                return "done"
            lease = connection.execute(sql.select(schema.leases).where(leases.hash == trial)).first()
            if lease and lease.owner != owner and lease.beat > time() - LEASE_SECONDS and is_alive(lease.owner):
                return "busy"
            values = {"owner": owner, "beat": time()}
            insert = self._insert(schema.leases).values(hash=trial, **values)
            connection.execute(insert.on_conflict_do_update(index_elements=["hash"], set_=values))
        return "mine"

    def beat(self, owner: str) -> None:
        """Say that the owner of its leases is alive."""
        with self._connect(writes=True) as connection:
            leases = schema.leases
            connection.execute(sql.update(leases).where(leases.c.owner == owner).values(beat=time()))

    def release(self, owner: str) -> None:
        """Give back every lease of an owner."""
        with self._connect(writes=True) as connection:
            connection.execute(sql.delete(schema.leases).where(schema.leases.c.owner == owner))
