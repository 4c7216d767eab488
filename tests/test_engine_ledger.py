"""The ledger: what is written is read again, whoever writes and however they die; what is no ledger is refused."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
import sqlalchemy as sql

from harness import BadInput, Scores
from harness.engine import ledger as ledger_module
from harness.engine import schema
from harness.engine.ledger import Ledger, NoLedger, open_ledger
from harness.engine.owner import is_alive, new_owner
from harness.engine.plan import MetricCall, Point, Trial
from harness.engine.record import FAILED, OK, Outcome, Record, cost, summary_of

LABEL = "error(power=2)"


def trial(seed: int = 0, version: str = "v1", method: str = "shift") -> Trial:
    call = MetricCall(LABEL, "error", "v1", {"power": 2}, {})
    point = Point(method, version, {"by": 1}, {"by": 1})
    return Trial("s", "toy", point, {"model": "m"}, {"model": "a"}, seed, (call,))


def scores(seed: int = 0, ids: tuple[str, ...] = ("a", "b", "c")) -> Scores:
    values = np.random.default_rng(seed).random(len(ids))
    sizes = np.arange(1.0, len(ids) + 1)
    blocks = ["left"] * (len(ids) - 1) + ["right"]
    return Scores(ids, values, "error|v:1", "mean", "m", True, sizes, -sizes, blocks, extra={"x": 1.0})


def record(seed: int = 0, status: str = OK, **options: str) -> Record:
    taken = {LABEL: summary_of(scores(seed))} if status == OK else {}
    spent = {"wall_seconds": cost(1.5), "energy_joules": cost(None)}
    one = Record.of(trial(seed, **options), status, metrics=taken, size={"model_bytes": 3}, cost=spent)
    return one if status == OK else dataclasses.replace(one, reason="why", traceback="where")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    one = open_ledger(str(tmp_path / "ledger.db"))
    yield one
    one.close()


def save(ledger: Ledger, *records: Record, suite: str = "s") -> None:
    for one in records:
        ledger.save(one, {LABEL: scores(one.seed)} if one.status == OK else {}, suite=suite)


def same(a: Scores, b: Scores) -> bool:
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("values", "weights", "targets"))
    words = ("signature", "summary", "unit", "higher_is_better", "extra")
    texts = all(list(getattr(a, name)) == list(getattr(b, name)) for name in ("ids", "blocks"))
    return arrays and texts and all(getattr(a, name) == getattr(b, name) for name in words)


def test_what_is_saved_is_read_again(ledger: Ledger) -> None:
    save(ledger, record(1), record(2, FAILED))
    assert ledger.get(trial(1).hash) == record_like(ledger, record(1))
    failed = ledger.get(trial(2).hash)
    assert failed is not None
    assert (failed.status, failed.reason, failed.traceback, failed.metrics) == (FAILED, "why", "where", {})
    assert ledger.get("0" * 64) is None
    kept = ledger.scores(record(1), LABEL)
    assert kept is not None
    assert same(kept, scores(1))
    assert ledger.scores(record(2), LABEL) is None


def record_like(ledger: Ledger, one: Record) -> Record:
    return dataclasses.replace(one, created=ledger.statuses([one.hash])[one.hash][1])


def test_a_new_result_takes_the_place_of_the_old(ledger: Ledger) -> None:
    save(ledger, record(1, FAILED), record(1))
    assert [one.status for one in ledger.records()] == [OK]
    save(ledger, record(1, FAILED))
    assert ledger.scores(record(1), LABEL) is None


def test_a_newer_version_fills_the_cell_of_a_suite(ledger: Ledger) -> None:
    save(ledger, record(1), record(2), record(1, version="v2"))
    assert [(one.seed, one.version) for one in ledger.records(suite="s")] == [(1, "v2"), (2, "v1")]
    assert len(list(ledger.records())) == 3


def test_records_are_filtered(ledger: Ledger) -> None:
    save(ledger, record(1), record(2, FAILED))
    save(ledger, record(3, method="noise"), suite="t")
    ledger.enroll("t", [(trial(1).cell, trial(1).hash)])
    assert [one.seed for one in ledger.records(suite="s")] == [1, 2]
    assert [one.seed for one in ledger.records(suite="t")] == [3, 1]
    assert [one.seed for one in ledger.records(suite="s", status=FAILED)] == [2]
    assert [one.seed for one in ledger.records(method="noise")] == [3]
    assert [one.seed for one in ledger.records(model="other")] == []
    assert {one.seed for one in ledger.records(hashes=[trial(2).hash, trial(3, method="noise").hash, "no"])} == {2, 3}
    assert ledger.suites() == {"s": 2, "t": 2}


def test_brief_records_leave_out_what_is_long(ledger: Ledger) -> None:
    save(ledger, record(1), record(2, FAILED))
    for one, brief in zip(ledger.records(), ledger.records(brief=True), strict=True):
        assert brief == dataclasses.replace(one, traceback="", log={}, metrics={}, size={})


def test_scores_of_several_records_are_read_at_once(ledger: Ledger) -> None:
    save(ledger, *(record(seed) for seed in range(4)), record(5, FAILED))
    found = ledger.scores_of([record(3), record(1), record(5, FAILED), record(9)], LABEL)
    assert found.keys() == {trial(3).hash, trial(1).hash}
    assert same(found[trial(3).hash], scores(3))
    assert found[trial(3).hash].ids is found[trial(1).hash].ids
    assert ledger.scores_of([record(1)], "other") == {}


def test_rows_are_written_in_bulk_and_once(ledger: Ledger) -> None:
    rows = [{"hash": f"{at}", "owner": "me", "beat": 0.0} for at in range(3)]
    with ledger.bulk() as write:
        write(schema.leases, rows)
        write(schema.leases, rows[:1])
        write(schema.scores, [])
    with ledger.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM leases").scalar() == 3

    def half() -> None:
        with ledger.bulk() as write:
            write(schema.leases, [{"hash": "9", "owner": "me", "beat": 0.0}])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    with ledger.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM leases").scalar() == 3


def test_many_hashes_are_looked_up_in_parts(ledger: Ledger) -> None:
    save(ledger, record(1))
    wanted = [f"{at:064d}" for at in range(2 * ledger_module.BATCH)] + [trial(1).hash]
    assert set(ledger.statuses(wanted)) == {trial(1).hash}
    assert [one.seed for one in ledger.records(hashes=wanted)] == [1]


def test_items_are_stored_once_for_many_records(ledger: Ledger) -> None:
    save(ledger, *(record(seed) for seed in range(5)))
    other = scores(9, ids=("a", "b", "d"))
    ledger.save(record(9), {LABEL: other}, suite="s")
    with ledger.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM item_sets").scalar() == 2
    kept = ledger.scores(record(9), LABEL)
    assert kept is not None
    assert same(kept, other)


def test_environments_are_kept_once(ledger: Ledger) -> None:
    ledger.add_environment("e", {"cpu": "x"})
    ledger.add_environment("e", {"cpu": "x"})
    assert ledger.environment("e") == {"cpu": "x"}
    assert ledger.environment("f") == {}


def test_outcomes_cross_the_pipe_unchanged() -> None:
    one = Outcome(record(3), {LABEL: scores(3)}, "solve")
    back = Outcome.from_json(one.to_json())
    assert "\n" not in one.to_json()
    assert back.record == one.record
    assert back.refused == "solve"
    assert same(back.scores[LABEL], scores(3))


def test_reading_does_not_grow_with_the_number_of_records(ledger: Ledger) -> None:
    def peak() -> int:
        tracemalloc.start()
        count = sum(1 for _ in ledger.records(suite="s"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count in (1000, 5000)
        return peak

    fill(ledger, 0, 1000)
    peak()
    few = peak()
    fill(ledger, 1000, 5000)
    assert peak() < 2 * few


def fill(ledger: Ledger, start: int, stop: int) -> None:
    """Records without scores, many in a transaction."""
    fields = [column.name for column in schema.records.columns if column.name != "item_limit"]
    base = record(0)
    rows = [{name: getattr(base, name) for name in fields} | {"hash": f"{at:064d}"} for at in range(start, stop)]
    with ledger.engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sql.insert(schema.records), rows)
        places = [{"suite": "s", "cell": row["hash"], "hash": row["hash"]} for row in rows]
        connection.execute(sql.insert(schema.members), places)


# Leases


def test_a_trial_is_claimed_once(ledger: Ledger) -> None:
    me, other = new_owner(), new_owner()
    one = trial(1).hash
    assert ledger.claim(one, me) == "mine"
    assert ledger.claim(one, other) == "busy"
    assert ledger.claim(one, me) == "mine"
    ledger.release(me)
    assert ledger.claim(one, other) == "mine"
    save(ledger, record(1))
    assert ledger.claim(one, me) == "done"


def test_a_claim_can_ask_for_a_newer_result(ledger: Ledger) -> None:
    save(ledger, record(1))
    assert ledger.claim(trial(1).hash, new_owner(), since=time.time() + 1) == "mine"
    assert ledger.claim(trial(1).hash, new_owner(), since=time.time() - 60) == "done"


def test_the_lease_of_a_dead_process_is_free(ledger: Ledger) -> None:
    code = "from harness.engine.owner import new_owner; print(new_owner())"
    owner = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert not is_alive(owner)
    assert is_alive(new_owner())
    assert ledger.claim("t", owner) == "mine"
    assert ledger.claim("t", new_owner()) == "mine"


def test_a_number_used_again_is_not_the_same_process() -> None:
    machine, _, _, unique = new_owner().split("/")
    parent = psutil.Process(os.getppid())
    assert not is_alive(f"{machine}/{parent.pid}/{parent.create_time() - 100:.2f}/{unique}")
    assert is_alive(f"{machine}/{parent.pid}/{parent.create_time():.2f}/{unique}")


def test_a_lease_on_another_machine_ends_without_a_beat(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    far, me = "elsewhere/1/0.0/x", new_owner()
    assert is_alive(far)
    assert ledger.claim("t", far) == "mine"
    assert ledger.claim("t", me) == "busy"
    now = time.time()
    monkeypatch.setattr(ledger_module, "time", lambda: now + ledger_module.LEASE_SECONDS - 5)
    ledger.beat(far)
    monkeypatch.setattr(ledger_module, "time", lambda: now + ledger_module.LEASE_SECONDS + 5)
    assert ledger.claim("t", me) == "busy"
    monkeypatch.setattr(ledger_module, "time", lambda: now + 2 * ledger_module.LEASE_SECONDS + 5)
    assert ledger.claim("t", me) == "mine"


def test_of_many_claims_at_once_one_wins(ledger: Ledger) -> None:
    won: list[str] = []

    def claim() -> None:
        owner = new_owner()
        won.extend(f"{at}" for at in range(20) if ledger.claim(f"{at}", owner) == "mine")

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won, key=int) == [str(at) for at in range(20)]


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_engine_ledger import *
one = open_ledger({path!r})
for seed in range(1_000_000):
    one.save(record(seed), {{LABEL: scores(seed)}}, suite="s")
    print(seed, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_whole_trials(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    for kill_after in (1, 6):
        code = WRITER.format(tests=str(Path(__file__).parent), path=str(path))
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(kill_after)]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.stdout.read().splitlines()]
        process.wait()
        ledger = open_ledger(str(path))
        kept = {one.seed: one for one in ledger.records(suite="s")}
        assert set(said) <= set(kept)
        for seed, one in kept.items():
            taken = ledger.scores(one, LABEL)
            assert taken is not None
            assert same(taken, scores(seed))
        ledger.close()


# What is no ledger


def refusal(where: str | Path, *, write: bool = True) -> str:
    with pytest.raises(BadInput) as caught:
        open_ledger(str(where), write=write)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.db").write_text("not a database " * 100)
    Path("folder.db").mkdir()
    with sqlite3.connect("other.db") as other:
        other.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    with sqlite3.connect("another.db") as other:
        other.execute("CREATE TABLE people (name TEXT)")
    before = {path.name: path.read_bytes() for path in Path().glob("*.db") if path.is_file()}
    for write in (True, False):
        something = "is not a ledger (a database of something else)"
        assert refusal("text.db", write=write) == "ledger text.db: is not a ledger (it is no SQLite file)"
        assert refusal("other.db", write=write) == f"ledger other.db: {something}"
        assert refusal("another.db", write=write) == f"ledger another.db: {something}"
        assert refusal("folder.db", write=write) == "ledger folder.db: is a folder; give the path of a file"
    assert {path.name: path.read_bytes() for path in Path().glob("*.db") if path.is_file()} == before


def test_urls_that_are_no_ledger(tmp_path: Path) -> None:
    assert refusal("nonsense://x") == "ledger nonsense://x: give the path of an SQLite file or a database URL"
    assert "secret" not in refusal("nonsense://me:secret@host/x")
    missing = "ledger oracle+cx_oracle://me:***@host/x: needs the Python package cx_Oracle, which is not installed"
    assert refusal("oracle+cx_oracle://me:secret@host/x") == missing


def test_there_is_nothing_to_read_before_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_LEDGER", raising=False)
    with pytest.raises(NoLedger) as caught:
        open_ledger(write=False)
    assert str(caught.value) == "ledger results/local/ledger.db: no such file; `harness run SUITE` makes one"
    assert not Path("results").exists()
    open_ledger().close()
    assert Path("results/local/ledger.db").is_file()
    monkeypatch.setenv("HARNESS_LEDGER", "mine.db")
    open_ledger().close()
    assert Path("mine.db").is_file()


def test_an_older_ledger_is_brought_up_to_date_when_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    open_ledger(str(path)).close()
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE records DROP COLUMN log")
        database.execute("UPDATE meta SET value = '1' WHERE key = 'version'")
    with pytest.raises(BadInput, match=r"older version .* brings it up to date"):
        open_ledger(str(path), write=False)
    open_ledger(str(path)).close()
    with closing(open_ledger(str(path), write=False)) as ledger:
        assert list(ledger.records()) == []


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    open_ledger(str(path)).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = '7' WHERE key = 'version'")
    assert refusal(path) == (
        f"ledger {path}: was written by a newer version (its tables have version 7, this program reads up to 2); "
        "update the harness or give another with --ledger"
    )


def test_a_read_only_ledger_is_read_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    writer = open_ledger(str(path))
    save(writer, record(1))
    writer.close()
    reader = open_ledger(str(path), write=False)
    assert [one.seed for one in reader.records(suite="s")] == [1]
    with pytest.raises(BadInput) as caught:
        save(reader, record(2))
    assert str(caught.value) == f"ledger {path}: is read-only; make it writable or give another with --ledger"
    reader.close()
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    assert refusal(url) == f"ledger {url}: is read-only; make it writable or give another with --ledger"


def test_a_ledger_cannot_be_made_where_nothing_can(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file" / "ledger.db").endswith("its folder cannot be made: File exists")


def test_a_full_disk_is_one_line_and_loses_nothing(ledger: Ledger) -> None:
    save(ledger, record(1))
    with ledger.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    big = dataclasses.replace(record(2), traceback="x" * 1_000_000)
    with pytest.raises(BadInput) as caught:
        save(ledger, big)
    message = "the disk is full; free space and run again, nothing finished was lost"
    assert str(caught.value) == f"ledger {ledger.name}: {message}"
    assert [one.seed for one in ledger.records(suite="s")] == [1]


def test_a_damaged_ledger_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = open_ledger(str(path))
    fill(ledger, 0, 500)
    ledger.close()
    content = bytearray(path.read_bytes())
    content[4096 * 10 :] = os.urandom(len(content) - 4096 * 10)
    path.write_bytes(content)
    broken = open_ledger(str(path), write=False)
    with pytest.raises(BadInput, match=r"ledger\.db: is damaged: "):
        list(broken.records())
    broken.close()
