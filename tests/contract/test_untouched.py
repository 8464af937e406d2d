"""Commands that only read a database file read it wherever it lies, and leave everything in its folder as it is."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest

from service.bootstrap.copying import copied
from service.cli.main import main
from service.errors import LedgerBusyError, LedgerUnavailableError, SettingsError
from service.store.sqlite.untouched import untouched
from tests.support.ledger_maker import KEY, public_pem
from tests.support.postgres import PostgresServer
from tests.support.sqlite_stores import SqliteStore
from tests.support.stores import SECRET
from tests.support.volumes import read_only, small_volume

Files = dict[str, bytes]

STATES = {
    "stopped": ("",),
    "killed": ("", "-wal", "-shm"),
    "copied with its log": ("", "-wal"),
    "looked at by another program": ("", "empty -wal", "-shm"),
}
"""What lies in a folder: what a process left that stopped or was killed, or what somebody took of it."""

WRITES_AND_GOES_ON = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("CREATE TABLE more (text)")
for number in range(2000):
    connection.execute("INSERT INTO more VALUES (?)", ("x" * 500,))
connection.execute("PRAGMA wal_checkpoint")
"""

IS_CUT_SHORT = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("CREATE TABLE texts (text)")
connection.execute("BEGIN")
connection.executemany("INSERT INTO texts VALUES (?)", [("old" * 200,)] * 2000)
connection.execute("COMMIT")
connection.execute("PRAGMA cache_size = 10")
connection.execute("BEGIN")
connection.execute("UPDATE texts SET text = replace(text, 'old', 'new')")
os._exit(0)
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[SqliteStore]:
    """A ledger whose process has committed records that are in its log only."""
    folder = tmp_path / "running"
    folder.mkdir()
    store = SqliteStore(folder)
    lane = store.lane()
    for _ in range(5):
        lane.submit(lambda transaction: transaction.save(store.fact())).result()
    store.checkpoints(lane).write()
    yield store
    store.close()


@pytest.fixture
def evidence(running: SqliteStore, tmp_path: Path, state: str) -> Path:
    """A folder with the database in one of the states, for every one of which all records can be read."""
    folder = tmp_path / "evidence"
    folder.mkdir()
    names = STATES[state]
    is_whole = "-wal" in names
    if not is_whole:
        running.close()
    for name in names:
        if name == "empty -wal":
            (folder / "ledger.db-wal").touch()
        elif (beside := Path(f"{running.path}{name}")).exists():
            shutil.copy2(beside, folder)
        else:
            (folder / beside.name).write_bytes(bytes(32768))
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The file of the public key."""
    file = tmp_path / "public.pem"
    file.write_text(public_pem(KEY))
    return file


@pytest.fixture(params=["a folder", "a read-only medium"])
def place(request: pytest.FixtureRequest, evidence: Path, tmp_path: Path) -> Iterator[Path]:
    """The evidence where it lies, or on a medium that cannot be written."""
    medium = (
        read_only(evidence, tmp_path / "medium") if request.param == "a read-only medium" else nullcontext(evidence)
    )
    with medium as folder:
        yield folder


def files_in(folder: Path) -> Files:
    """Return every file below a folder, with its bytes."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("state", STATES)
def test_evidence_is_verified_as_it_lies(
    place: Path, running: SqliteStore, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every committed record is read, those of the log included, and no file is made, changed or removed."""
    before = files_in(place)
    url = f"sqlite:///{place}/ledger.db"

    assert main(["verify", "--database", url, "--public-key", str(key), "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)

    assert printed.err == (
        "auditrace: this verification is not recorded: no process of the service works on this database, so it is read "
        "as it lies\n"
    )
    assert report["records"] >= 7
    assert report["checkpoints"] >= 1
    assert files_in(place) == before
    assert main(["verify", "--compare", url, url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["common"] == report["records"]
    assert files_in(place) == before


@pytest.mark.parametrize("state", STATES)
def test_other_commands_that_read_leave_it_so_too(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Export, doctor and the public key come from a medium that cannot be written as from anywhere else."""
    (tmp_path / "keys").mkdir(mode=0o700)
    secret = tmp_path / "keys" / "ledger.secret"
    secret.touch(mode=0o600)
    secret.write_bytes(b"s" * 32)
    monkeypatch.setenv("AUDITRACE_DATABASE", f"sqlite:///{place}/ledger.db")
    monkeypatch.setenv("AUDITRACE_LEDGER_SECRET", str(secret))
    before = files_in(place)

    assert main(["export", "--output", str(tmp_path / "export.jsonl")]) == 0
    assert main(["keys", "public"]) == 0
    assert public_pem(KEY) in capsys.readouterr().out
    main(["doctor", "--ledger", "--json"])
    checks = {one["check"]: one for one in json.loads(capsys.readouterr().out)["checks"]}

    assert len((tmp_path / "export.jsonl").read_text().splitlines()) >= 1
    assert checks["ledger"]["status"] == "ok", checks
    assert checks["checkpoints"]["detail"].startswith("the last one is number ")
    assert files_in(place) == before


@pytest.mark.parametrize("state", STATES)
def test_a_ledger_is_copied_from_a_read_only_medium(
    evidence: Path, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    """What nobody can write needs no lock, and comes into a PostgreSQL as from anywhere else."""
    target = postgres_server.create_database()
    with read_only(evidence, tmp_path / "medium") as medium:
        before = files_in(medium)
        done = copied(f"sqlite:///{medium}/ledger.db", target, lambda: SECRET, lambda _: None)
        assert files_in(medium) == before
    with psycopg.connect(target) as session:
        assert session.execute("SELECT count(*) FROM audit_records").fetchone() == (done.rows["records"],)
    postgres_server.drop_database(target)


@pytest.mark.parametrize("state", ["killed"])
def test_a_copy_is_not_made_beside_locks_that_cannot_be_looked_at(
    evidence: Path, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    """Whether a process lives cannot be told on a read-only medium: what to do is said, and nothing is copied."""
    (evidence / "ledger.db.owners").mkdir()
    (evidence / "ledger.db.owners" / "node-1").touch()
    with read_only(evidence, tmp_path / "medium") as medium, pytest.raises(SettingsError, match="to a folder that can"):
        copied(f"sqlite:///{medium}/ledger.db", postgres_server.url("postgres"), lambda: SECRET, lambda _: None)


def test_a_running_process_is_not_disturbed(running: SqliteStore, key: Path) -> None:
    """While a process writes, one snapshot is verified, and the process commits and ends as ever."""
    command = [sys.executable, "-m", "service", "verify", "--database", running.database, "--public-key", str(key)]
    before = sorted(path.name for path in running.path.parent.iterdir())
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "is not recorded: the ledger secret var/keys/ledger.secret" in done.stderr
    assert sorted(path.name for path in running.path.parent.iterdir()) == before
    lane = running.lane("after")
    lane.submit(lambda transaction: transaction.save(running.fact())).result()


def test_a_running_process_on_a_read_only_view_may_change_the_file(running: SqliteStore, tmp_path: Path) -> None:
    """SQLite's locks work through a read-only view: what another process writes meanwhile is not seen."""
    sql = "SELECT count(*) FROM audit_records"
    with read_only(running.path.parent, tmp_path / "view") as view, untouched(view / "ledger.db") as connection:
        connection.execute("BEGIN")
        (before,) = connection.execute(sql).fetchone()
        writes(running.path)
        assert connection.execute(sql).fetchone() == (before,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("state", ["stopped", "killed", "looked at by another program"])
def test_a_process_that_starts_meanwhile_is_no_alarm(evidence: Path) -> None:
    """Where no lock holds a new process back, what was read is thrown away, and the same can be tried again."""

    def read_while_another_process_writes() -> None:
        with untouched(evidence / "ledger.db") as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM audit_records").fetchone()
            writes(evidence / "ledger.db")
            connection.execute("PRAGMA integrity_check").fetchone()

    with pytest.raises(LedgerBusyError, match="was changed by another process while it was read"):
        read_while_another_process_writes()
    with untouched(evidence / "ledger.db") as connection:
        assert connection.execute("SELECT count(*) FROM more").fetchone() == (2000,)


@pytest.mark.parametrize("state", ["copied with its log"])
def test_a_copy_that_has_no_room_says_what_to_do(
    evidence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that is read from a copy needs room for it: the message names the folder and the setting."""
    with small_volume(tmp_path / "small", 64 << 10) as small:
        monkeypatch.setattr("tempfile.tempdir", str(small))
        with pytest.raises(LedgerUnavailableError, match="set TMPDIR"), untouched(evidence / "ledger.db"):
            pass
        assert list(small.iterdir()) == []


@pytest.mark.parametrize("state", ["copied with its log"])
def test_a_link_is_followed_to_the_log_beside_the_file(evidence: Path, tmp_path: Path) -> None:
    """The log lies beside the file that a link names, and not beside the link."""
    link = tmp_path / "link.db"
    link.symlink_to(evidence / "ledger.db")
    with untouched(link) as connection:
        assert connection.execute("SELECT count(*) FROM audit_records").fetchone()[0] >= 7


def test_a_change_that_was_cut_short_is_rolled_back_in_a_copy(tmp_path: Path) -> None:
    """A file that another tool has set to a rollback journal is read as it was before the change that was cut short."""
    file = tmp_path / "evidence" / "ledger.db"
    file.parent.mkdir()
    subprocess.run([sys.executable, "-c", IS_CUT_SHORT, str(file)], check=True)
    before = files_in(file.parent)
    assert sorted(before) == ["ledger.db", "ledger.db-journal"]
    with untouched(file) as connection:
        assert connection.execute("SELECT count(*) FROM texts WHERE text LIKE 'old%'").fetchone() == (2000,)
    assert files_in(file.parent) == before


@pytest.mark.parametrize("state", ["stopped"])
def test_what_is_no_database_is_refused(evidence: Path) -> None:
    """An error of SQLite within the block is one of the service."""
    (evidence / "ledger.db").write_bytes(b"no database" * 1000)
    with pytest.raises(Exception, match="file is not a database"), untouched(evidence / "ledger.db") as connection:
        connection.execute("SELECT 1 FROM audit_records")


def writes(path: Path) -> None:
    """Let another process change the file, and put its log into it."""
    subprocess.run([sys.executable, "-c", WRITES_AND_GOES_ON, str(path)], check=True)
