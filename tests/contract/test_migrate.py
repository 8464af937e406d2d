"""Migrations of the SQLite file: numbered steps that are there as a whole or not at all, whatever happens meanwhile."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from service.errors import BrokenLedgerError, LedgerBusyError, SettingsError
from service.store.sqlite import connection as connecting
from service.store.sqlite.connection import connect, create
from service.store.sqlite.migrate import migrate, migrations, schema_version
from tests.checks import SCHEMA
from tests.checks import schema as sum_of_migrations
from tests.support.collector import ROOT

KILLED_AT_EACH_STATEMENT = """
import os, signal, sqlite3, sys
from pathlib import Path
from service.store.sqlite.connection import connect, create
from service.store.sqlite.migrate import migrate

def die_at(number):
    count = 0
    def note(statement):
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
    return note

folder, number = Path(sys.argv[1]), 0
while True:
    number += 1
    pid = os.fork()
    if pid == 0:
        create(folder / f"{number}.db")
        connection = connect(folder / f"{number}.db")
        connection.set_trace_callback(die_at(number))
        migrate(connection)
        os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        break
print(number)
"""


def _opened(path: Path) -> sqlite3.Connection:
    """Open a file, which is made if there is none."""
    create(path)
    return connect(path)


def _objects(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").fetchall()


def _after(steps: int) -> list[tuple[str, str]]:
    """Return what the first steps make."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for migration in migrations()[:steps]:
            connection.executescript(migration.sql)
        return _objects(connection)


def test_the_schema_is_the_sum_of_the_migrations(tmp_path: Path) -> None:
    """The file that people read is what the steps make, and applying them again changes nothing."""
    assert SCHEMA.read_text("utf-8") == sum_of_migrations()
    with closing(_opened(tmp_path / "ledger.db")) as connection:
        assert migrate(connection) == [migration.name for migration in migrations()]
        made = _objects(connection)
        assert made == _after(len(migrations()))
        assert migrate(connection) == []
        assert _objects(connection) == made
        assert schema_version(connection) == len(migrations())


def test_a_migration_goes_on_from_any_version(tmp_path: Path) -> None:
    """A file that an older version left gets the steps that it lacks, and ends with the same schema."""
    for steps in range(len(migrations())):
        with closing(_opened(tmp_path / f"{steps}.db")) as connection:
            for migration in migrations()[:steps]:
                connection.executescript(migration.sql)
            connection.execute(f"PRAGMA user_version = {steps}")
            assert migrate(connection) == [migration.name for migration in migrations()[steps:]]
            assert _objects(connection) == _after(len(migrations()))


def test_a_process_that_is_killed_while_it_migrates_leaves_whole_steps(tmp_path: Path) -> None:
    """Killed before any statement, the file holds the steps before it and nothing of the one under way; it goes on."""
    script = [sys.executable, "-c", KILLED_AT_EACH_STATEMENT, str(tmp_path)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True)
    statements = int(done.stdout)
    assert statements > sum(migration.sql.count("CREATE ") for migration in migrations())
    versions = set()
    for number in range(1, statements):
        with closing(_opened(tmp_path / f"{number}.db")) as connection:
            version = schema_version(connection)
            versions.add(version)
            assert _objects(connection) == _after(version)
            migrate(connection)
            assert _objects(connection) == _after(len(migrations()))
    assert versions == set(range(len(migrations()) + 1))


def test_processes_that_migrate_at_the_same_time_do_it_once(tmp_path: Path) -> None:
    """Each step is applied by one of them, and all of them find the whole schema."""
    applied: list[str] = []
    start = threading.Barrier(4)

    def run() -> None:
        with closing(_opened(tmp_path / "ledger.db")) as connection:
            start.wait()
            applied.extend(migrate(connection))
            assert schema_version(connection) == len(migrations())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [migration.name for migration in migrations()]


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """What a newer version wrote is not touched by an older one, which says what to do."""
    with closing(_opened(tmp_path / "ledger.db")) as connection:
        migrate(connection)
        connection.execute(f"PRAGMA user_version = {len(migrations()) + 1}")
        with pytest.raises(SettingsError, match="upgrade this process"):
            migrate(connection)


def test_a_file_that_is_busy_is_migrated_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process holds the file nothing is applied, and the caller may try again."""
    monkeypatch.setattr(connecting, "BUSY_TIMEOUT_MS", 20)
    with closing(_opened(tmp_path / "ledger.db")) as connection, closing(_opened(tmp_path / "ledger.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerBusyError):
            migrate(connection)
        assert schema_version(connection) == 0
        other.execute("ROLLBACK")
        assert len(migrate(connection)) == len(migrations())


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A file whose state does not fit a step is rolled back to before it, and said to be broken."""
    with closing(_opened(tmp_path / "ledger.db")) as connection:
        connection.executescript(migrations()[0].sql)
        connection.execute("PRAGMA user_version = 1")
        connection.execute("CREATE TABLE refused_streams (mine TEXT)")
        before = _objects(connection)
        with pytest.raises(BrokenLedgerError):
            migrate(connection)
        assert _objects(connection) == before
        assert schema_version(connection) == 1
