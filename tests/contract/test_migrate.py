"""Migrations of the SQLite file: numbered steps that are there as a whole or not at all, whatever happens meanwhile."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from service.errors import BrokenLedgerError, LedgerBusyError, SettingsError
from service.store.migrations import Migration
from service.store.sqlite import connection as connecting
from service.store.sqlite.connection import connect, create
from service.store.sqlite.migrate import MIGRATIONS, additions, migrate, missing_steps, schema_version
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


def _take(connection: sqlite3.Connection, steps: int) -> None:
    """Apply the first steps, each as a release that knew no further one did."""
    for step in MIGRATIONS[:steps]:
        connection.executescript(step.sql)
        if step.is_addition:
            connection.execute("INSERT INTO schema_additions VALUES (?)", (step.name,))
        else:
            connection.execute(f"PRAGMA user_version = {step.number}")
    connection.commit()


def _after(steps: int) -> list[tuple[str, str]]:
    """Return what the first steps make."""
    with closing(sqlite3.connect(":memory:")) as connection:
        _take(connection, steps)
        return _objects(connection)


def _names(steps: Sequence[Migration]) -> list[str]:
    return [step.name for step in steps]


def _taken(connection: sqlite3.Connection) -> int:
    """Return how many steps a file has seen: the first ones, whole."""
    missing = missing_steps(connection)
    assert list(missing) == list(MIGRATIONS[len(MIGRATIONS) - len(missing) :])
    return len(MIGRATIONS) - len(missing)


def test_the_schema_is_the_sum_of_the_migrations(tmp_path: Path) -> None:
    """The file that people read is what the steps make, and applying them again changes nothing."""
    assert SCHEMA.read_text("utf-8") == sum_of_migrations()
    with closing(_opened(tmp_path / "ledger.db")) as connection:
        assert migrate(connection) == _names(MIGRATIONS)
        made = _objects(connection)
        assert made == _after(len(MIGRATIONS))
        assert migrate(connection) == []
        assert _objects(connection) == made
        assert _taken(connection) == len(MIGRATIONS)


def test_a_migration_goes_on_from_any_version(tmp_path: Path) -> None:
    """A file that an older version left gets the steps that it lacks, and ends with the same schema."""
    for steps in range(len(MIGRATIONS)):
        with closing(_opened(tmp_path / f"{steps}.db")) as connection:
            _take(connection, steps)
            assert migrate(connection) == _names(MIGRATIONS[steps:])
            assert _objects(connection) == _after(len(MIGRATIONS))


def test_a_process_that_is_killed_while_it_migrates_leaves_whole_steps(tmp_path: Path) -> None:
    """Killed before any statement, the file holds the steps before it and nothing of the one under way; it goes on."""
    script = [sys.executable, "-c", KILLED_AT_EACH_STATEMENT, str(tmp_path)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True)
    statements = int(done.stdout)
    assert statements > sum(step.sql.count("CREATE ") for step in MIGRATIONS)
    versions = set()
    for number in range(1, statements):
        with closing(_opened(tmp_path / f"{number}.db")) as connection:
            taken = _taken(connection)
            versions.add(taken)
            assert _objects(connection) == _after(taken)
            migrate(connection)
            assert _objects(connection) == _after(len(MIGRATIONS))
    assert versions == set(range(len(MIGRATIONS)))


def test_processes_that_migrate_at_the_same_time_do_it_once(tmp_path: Path) -> None:
    """Each step is applied by one of them, and all of them find the whole schema."""
    applied: list[str] = []
    start = threading.Barrier(4)

    def run() -> None:
        with closing(_opened(tmp_path / "ledger.db")) as connection:
            start.wait()
            applied.extend(migrate(connection))
            assert _taken(connection) == len(MIGRATIONS)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == _names(MIGRATIONS)


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """What a newer version wrote is not touched by an older one, which says what to do."""
    with closing(_opened(tmp_path / "ledger.db")) as connection:
        migrate(connection)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        with pytest.raises(SettingsError, match="upgrade this process"):
            migrate(connection)


def test_what_a_newer_version_added_is_worked_beside(tmp_path: Path) -> None:
    """An addition that this version does not know is left alone, and the file is its own all the same."""
    with closing(_opened(tmp_path / "ledger.db")) as connection:
        migrate(connection)
        connection.execute("INSERT INTO schema_additions VALUES ('0099_later.addition.sql')")
        assert migrate(connection) == []
        assert "0099_later.addition.sql" in additions(connection)


def test_an_addition_leaves_the_number_that_older_versions_look_at() -> None:
    """The first release refuses a file with a `user_version` above 2, and any of those that follow its own likewise."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        assert schema_version(connection) == max(step.number for step in MIGRATIONS if not step.is_addition)


def test_a_file_that_is_busy_is_migrated_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process holds the file nothing is applied, and the caller may try again."""
    monkeypatch.setattr(connecting, "BUSY_TIMEOUT_MS", 20)
    with closing(_opened(tmp_path / "ledger.db")) as connection, closing(_opened(tmp_path / "ledger.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerBusyError):
            migrate(connection)
        assert schema_version(connection) == 0
        other.execute("ROLLBACK")
        assert len(migrate(connection)) == len(MIGRATIONS)


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A file whose state does not fit a step is rolled back to before it, and said to be broken."""
    with closing(_opened(tmp_path / "ledger.db")) as connection:
        _take(connection, 1)
        connection.execute("CREATE TABLE refused_streams (mine TEXT)")
        before = _objects(connection)
        with pytest.raises(BrokenLedgerError):
            migrate(connection)
        assert _objects(connection) == before
        assert schema_version(connection) == 1
