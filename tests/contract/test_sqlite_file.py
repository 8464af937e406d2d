"""A database that is moved, removed or replaced under its processes takes no change that would be lost with it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.bootstrap.sqlite import SqliteDatabase
from service.errors import LedgerUnavailableError, SettingsError
from service.ports import Receipt
from service.store.sqlite.connection import connect, create, database_path
from service.store.sqlite.identity import network_problem
from service.store.sqlite.lane import COMMIT_ELSEWHERE
from service.store.sqlite.owners import OwnerLocks, living_owners
from service.store.sqlite.untouched import untouched
from tests.support.ledger_maker import FOREIGN_KEY
from tests.support.poll_until import poll_until
from tests.support.sqlite_stores import SqliteStore

# Fails while any process but itself has SQLite's shared lock, which every open connection to a WAL database has.
_LOCK_ALONE = """
import fcntl, os, sys
fcntl.lockf(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)
"""


def _commit(store: SqliteStore, lane: Any) -> Receipt:
    receipt: Receipt = lane.submit(lambda transaction: transaction.save(store.fact())).result()
    return receipt


def _replace(path: Path) -> None:
    path.rename(path.with_name("kept"))
    shutil.copy(path.with_name("kept"), path)


def _put_back(path: Path) -> None:
    path.with_name("kept").replace(path)


def _move(path: Path) -> None:
    path.rename(path.with_name("kept"))


def _move_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def _put_the_folder_back(path: Path) -> None:
    path.parent.with_name("elsewhere").rename(path.parent)


def _remove_the_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").rename(path.with_name("kept"))


def _put_the_log_back(path: Path) -> None:
    path.with_name("kept").rename(path.with_name(f"{path.name}-wal"))


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    """A ledger in a folder that can be moved."""
    folder = tmp_path / "data"
    folder.mkdir()
    return SqliteStore(folder)


@pytest.mark.parametrize(
    ("harm", "mend"),
    [
        (_replace, _put_back),
        (_move, _put_back),
        (_move_the_folder, _put_the_folder_back),
        (_remove_the_log, _put_the_log_back),
    ],
    ids=lambda value: value.__name__.strip("_"),
)
def test_nothing_is_committed_to_a_file_that_is_not_in_its_place(
    store: SqliteStore, harm: Callable[[Path], None], mend: Callable[[Path], None]
) -> None:
    """Requests are refused with what to do, as long as it lasts; once it is back all goes on in the same stream."""
    lane = store.lane()
    writer, outbox, replays = store.checkpoints(lane), store.outbox(), store.replays()
    first = _commit(store, lane)
    assert writer.write() is not None
    store.reads.outbox()
    replays.begin(from_start=True)
    reading = [store.reads.outbox, writer.look, writer.last, writer.refused, writer.registered]
    harm(store.path)
    for attempt in (
        lambda: _commit(store, lane),
        writer.hold,
        writer.release,
        lambda: writer.register(FOREIGN_KEY),
        lambda: outbox.take(10, 2**20),
        lambda: replays.begin(from_start=False),
        lambda: replays.next(10, 2**20),
        lambda: replays.answered(0),
        replays.end,
        *([] if harm is _remove_the_log else reading),
    ):
        with pytest.raises(LedgerUnavailableError, match="put it back, or stop every process"):
            attempt()
    mend(store.path)
    second = _commit(store, lane)
    assert (second.stream_id, second.sequence_number) == (first.stream_id, first.sequence_number + 2)
    assert writer.write() is not None
    assert store.verify().verdict == "intact"
    store.close()


def test_a_lane_that_waits_writes_nothing_to_a_log_that_was_taken_away(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Processes that start now have another log for the same file: the lease of the stream is not renewed either."""
    _commit(store, store.lane())
    _remove_the_log(store.path)
    log = store.path.with_name("kept").read_bytes()
    store.clock.advance(9)
    poll_until(lambda: "lease could not be renewed" in caplog.text, "the lane to renew its lease")
    assert "put it back, or stop every process" in caplog.text
    assert store.path.with_name("kept").read_bytes() == log
    _put_the_log_back(store.path)
    store.close()


def test_a_commit_during_which_the_file_is_moved_is_not_acknowledged(store: SqliteStore) -> None:
    """It may be in a file that nobody opens again: the caller is told to look, and gets no receipt."""
    lane = store.lane()
    _commit(store, lane)

    def move_and_save(transaction: Any) -> Receipt:
        receipt: Receipt = transaction.save(store.fact())
        _move(store.path)
        return receipt

    with pytest.raises(LedgerUnavailableError) as refused:
        lane.submit(move_and_save).result()
    assert str(refused.value) == COMMIT_ELSEWHERE
    _put_back(store.path)
    # Whether it counts is looked up, and the stream that it may be in is left alone.
    assert store.rows("SELECT max(number) FROM audit_streams") == [(3,)]
    _commit(store, lane)
    assert store.rows("SELECT number FROM audit_streams ORDER BY opened_ns") == [(3,), (2,)]
    store.close()


def test_a_file_that_took_the_place_of_one_in_use_is_not_opened_beside_it(store: SqliteStore) -> None:
    """A process never has two databases for one: whoever put the new file there restarts it."""
    lane = store.lane()
    _commit(store, lane)
    _replace(store.path)
    with pytest.raises(LedgerUnavailableError, match="not the one that this process has open"):
        connect(store.path)
    _put_back(store.path)
    store.close()


def test_no_process_makes_an_empty_database_where_one_was(store: SqliteStore) -> None:
    """A file that is gone is said to be gone; only a start makes one."""
    store.path.unlink()
    with pytest.raises(LedgerUnavailableError, match="No such file"):
        connect(store.path)
    assert not store.path.exists()


def test_owners_are_found_in_a_folder_that_was_moved(tmp_path: Path) -> None:
    """Whoever lives is not taken for dead because an operator renamed the folder under two processes."""
    (tmp_path / "data").mkdir()
    one, other = (OwnerLocks(tmp_path / "data" / "ledger.db", name) for name in ("one", "other"))
    (tmp_path / "data").rename(tmp_path / "moved")
    assert one.is_alive("other")
    assert living_owners(tmp_path / "moved" / "ledger.db") == ["one", "other"]
    other.release()
    assert not one.is_alive("other")
    one.release()


def test_owners_are_the_same_whatever_the_database_is_called(tmp_path: Path) -> None:
    """A symbolic link, or a path through one, leads to the locks of the file itself."""
    (tmp_path / "data").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "data" / "ledger.db")
    (tmp_path / "folder").symlink_to(tmp_path / "data")
    names = [tmp_path / "data" / "ledger.db", tmp_path / "link.db", tmp_path / "folder" / "ledger.db"]
    locks = [OwnerLocks(name, f"node-{number}") for number, name in enumerate(names)]
    assert all(one.is_alive(other.owner) for one in locks for other in locks)
    assert [path.name for path in tmp_path.rglob("*.owners")] == ["ledger.db.owners"]
    for one in locks:
        one.release()


def test_connections_that_are_closed_leave_the_others_their_locks(store: SqliteStore) -> None:
    """No open and close of the file in a process ends the locks by which SQLite knows that it is in use."""
    alone = [sys.executable, "-c", _LOCK_ALONE, str(store.path)]
    lane = store.lane()
    _commit(store, lane)
    for read_only in (True, False):
        connect(store.path, read_only=read_only).close()
    SqliteDatabase(store.database).require()
    assert subprocess.run(alone, check=False, capture_output=True).returncode != 0
    store.close()
    assert subprocess.run(alone, check=False, capture_output=True).returncode == 0


def test_nothing_is_held_open_once_all_connections_are_closed(store: SqliteStore) -> None:
    """A file that was in use can be moved and opened by its new name when its processes have ended."""
    store.close()
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    connections = [connect(store.path, read_only=number > 0) for number in range(3)]
    for connection in connections:
        connection.close()
        connection.close()
    assert len(list(descriptors.iterdir())) == before
    store.path.rename(store.path.with_name("renamed.db"))
    connect(store.path.with_name("renamed.db")).close()


def test_a_copy_may_have_two_names_while_nobody_works_on_it(store: SqliteStore, tmp_path: Path) -> None:
    """Backups of one file are often hard links: what only reads takes them, and what writes does not."""
    lane = store.lane()
    _commit(store, lane)
    link = tmp_path / "link.db"
    link.hardlink_to(store.path)
    with pytest.raises(SettingsError, match="is in use under another name"), untouched(link):
        pass
    store.close()
    with untouched(link) as connection:
        assert connection.execute("SELECT max(number) FROM audit_records").fetchone() == (3,)
        with pytest.raises(SettingsError, match=r"has 2 names \(hard links\)"):
            connect(link)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "link.db"]


@pytest.mark.parametrize(
    "spelling",
    ["{0}/ledger.db", "{0}//ledger.db", "{0}/./ledger.db", "{0}/../{1}/ledger.db", "{0}/link/ledger.db", "{0}/link.db"],
)
def test_a_file_is_the_same_however_its_url_is_spelt(tmp_path: Path, spelling: str) -> None:
    """What follows is done with one path, in which no symbolic link, dot or second slash is left."""
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "link.db").symlink_to("ledger.db")
    assert database_path(f"sqlite:///{spelling.format(tmp_path, tmp_path.name)}") == tmp_path / "ledger.db"


def test_a_relative_url_names_a_file_of_the_folder_where_the_process_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the same file for the rest of the process's life."""
    monkeypatch.chdir(tmp_path)
    assert database_path("sqlite:///./var//x.db") == database_path("sqlite:///var/x.db") == tmp_path / "var" / "x.db"


def test_a_percent_sign_is_a_part_of_the_name(tmp_path: Path) -> None:
    """Nothing in the path of a URL is decoded, so that a name is told from another by its text alone."""
    assert database_path("sqlite:////a%20b/x%2Edb") == Path("/a%20b/x%2Edb")
    create(tmp_path / "100%25?#.db")
    connect(tmp_path / "100%25?#.db").close()
    assert [path.name for path in tmp_path.iterdir()] == ["100%25?#.db"]


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    """The line names the setting."""
    with pytest.raises(SettingsError, match="is no file: AUDITRACE_DATABASE names the file"):
        SqliteDatabase(f"sqlite:///{tmp_path}").examine()


def test_a_network_file_system_is_refused() -> None:
    """On it SQLite's log is a file for each machine, and locks hold for one alone."""
    mounts = (
        "36 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw\n"
        "40 36 0:51 / /srv rw,relatime shared:2 master:3 - nfs4 server:/srv rw,vers=4.2\n"
        "41 36 0:52 /a\\040b /mnt rw - fuse.sshfs host: rw\n"
    )
    path = Path("/srv/auditrace.db")
    assert network_problem(path, mounts, 36) is None
    assert network_problem(path, mounts, 4) is None
    for mount, kind in ((40, "nfs4"), (41, "fuse.sshfs")):
        problem = network_problem(path, mounts, mount)
        assert problem is not None
        assert problem.startswith(f"/srv/auditrace.db is on a network file system ({kind})")
