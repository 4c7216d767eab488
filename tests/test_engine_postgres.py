"""PostgreSQL as a ledger, on a server of its own: what holds for the SQLite file holds here, also for two at work."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
import test_engine_run
from engine_toy import Toy, toy_fixture  # noqa: F401
from test_engine_ledger import (  # noqa: F401
    test_a_claim_can_ask_for_a_newer_result,
    test_a_lease_on_another_machine_ends_without_a_beat,
    test_a_new_result_takes_the_place_of_the_old,
    test_a_newer_version_fills_the_cell_of_a_suite,
    test_a_trial_is_claimed_once,
    test_brief_records_leave_out_what_is_long,
    test_environments_are_kept_once,
    test_items_are_stored_once_for_many_records,
    test_many_hashes_are_looked_up_in_parts,
    test_of_many_claims_at_once_one_wins,
    test_reading_does_not_grow_with_the_number_of_records,
    test_records_are_filtered,
    test_rows_are_written_in_bulk_and_once,
    test_scores_of_several_records_are_read_at_once,
    test_the_lease_of_a_dead_process_is_free,
    test_what_is_saved_is_read_again,
)

from harness import BadInput
from harness.engine import schema
from harness.engine.ledger import Ledger, NoLedger, open_ledger

pytestmark = pytest.mark.slow
PLACES = os.pathsep.join([*sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True), os.environ.get("PATH", "")])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The socket folder of a server that is started for these tests, with the programs of the system's package."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'nn-harness[postgres]'")
    tools = {name: shutil.which(name, path=PLACES) for name in ("initdb", "pg_ctl")}
    if None in tools.values():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = tempfile.mkdtemp(prefix="pg", dir="/tmp")  # the path of a socket may have 107 characters only
    user = None
    if os.getuid() == 0:  # the server refuses to run as root
        user = "postgres"
        shutil.chown(folder, user)

    def call(name: str, *arguments: str) -> None:
        command = [tools[name], "-D", f"{folder}/data", *arguments]
        subprocess.run(command, check=True, capture_output=True, user=user, cwd=folder)

    call("initdb", "-U", "tester", "-A", "trust", "--no-sync")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    call("pg_ctl", "-l", f"{folder}/log", "-o", options, "-w", "start")
    yield folder
    call("pg_ctl", "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    """A new, empty database."""
    name = f"t{abs(hash(request.node.name))}"
    admin = sql.create_engine(f"postgresql+psycopg://tester@/postgres?host={server}", isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    admin.dispose()
    return f"postgresql://tester@/{name}?host={server}"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    one = open_ledger(url)
    yield one
    one.close()


def test_an_empty_database_is_no_ledger_until_something_is_run(url: str) -> None:
    with pytest.raises(NoLedger, match="the database is empty; `harness run SUITE` makes a ledger in it"):
        open_ledger(url, write=False)
    open_ledger(url).close()
    open_ledger(url, write=False).close()


def test_a_database_of_something_else_is_left_alone(url: str) -> None:
    engine = sql.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE people (name TEXT)")
    with pytest.raises(BadInput, match="is not a ledger"):
        open_ledger(url)
    assert sql.inspect(engine).get_table_names() == ["people"]
    engine.dispose()


def test_a_server_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        open_ledger(f"postgresql://tester:secret@/x?host={tmp_path}")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "connection" in str(caught.value)


def test_many_can_make_one_ledger_at_once(url: str) -> None:
    made: list[Ledger] = []
    threads = [threading.Thread(target=lambda: made.append(open_ledger(url))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert made[0].suites() == {}
    for one in made:
        one.close()


def test_an_older_ledger_is_upgraded(url: str) -> None:
    ledger = open_ledger(url)
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE records DROP COLUMN log")
        connection.exec_driver_sql("UPDATE meta SET value = '1' WHERE key = 'version'")
    ledger.close()
    with pytest.raises(BadInput, match="was written by an older version"):
        open_ledger(url, write=False)
    ledger = open_ledger(url)
    with ledger.engine.connect() as connection:
        assert connection.execute(
            sql.select(schema.meta.c.value).where(schema.meta.c.key == "version")
        ).scalar() == str(schema.VERSION)
        assert connection.execute(sql.select(schema.records.c.log)).all() == []
    ledger.close()


def test_two_runs_at_once_share_the_work(toy: Toy, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LEDGER", url)
    test_engine_run.test_two_runs_at_once_share_the_work(toy)


def test_a_run_killed_in_the_middle_goes_on_where_it_was(toy: Toy, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LEDGER", url)
    test_engine_run.test_a_run_killed_in_the_middle_goes_on_where_it_was(toy)
