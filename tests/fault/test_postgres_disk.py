"""A full disk under PostgreSQL refuses changes as a whole, and is forgotten as soon as there is room again."""

import itertools
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

from service.errors import LedgerUnavailableError
from service.ports import Receipt, Transaction
from service.store.writability import WatchedLedger
from tests.support.both_stores import POSTGRES
from tests.support.poll_until import poll_until
from tests.support.postgres import PostgresServer
from tests.support.postgres_stores import PostgresStore
from tests.support.stores import new_job
from tests.support.volumes import fill

pytestmark = pytest.mark.stores(POSTGRES)


@pytest.fixture
def small_disk(postgres_server: PostgresServer) -> Iterator[Path]:
    """A disk of 40 MiB on which the server may keep databases."""
    if os.geteuid() != 0:
        reason = "a disk of a test's own needs root, to be mounted"
        if os.environ.get("CI"):  # noqa: TID251 - a test that is not run must be seen in CI
            pytest.fail(reason)
        pytest.skip(reason)
    disk = postgres_server.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], check=True)
    try:
        account = pwd.getpwnam("nobody")
        os.chown(disk, account.pw_uid, account.pw_gid)
        with psycopg.connect(postgres_server.url(), autocommit=True) as session:
            session.execute(f"CREATE TABLESPACE small LOCATION '{disk}'".encode())
        yield disk
        with psycopg.connect(postgres_server.url(), autocommit=True) as session:
            for (name,) in session.execute(
                "SELECT datname FROM pg_database JOIN pg_tablespace t ON t.oid = dattablespace WHERE spcname = 'small'"
            ).fetchall():
                session.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            session.execute("DROP TABLESPACE small")
    finally:
        # Lazily, because a session that was ended may not have closed its files yet.
        subprocess.run(["umount", "-l", str(disk)], check=True)
        disk.rmdir()


def _move(url: str, postgres_server: PostgresServer) -> None:
    """Move a database to the small disk."""
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    with psycopg.connect(postgres_server.url(), autocommit=True) as session:
        session.execute(f"ALTER DATABASE {name} SET TABLESPACE small".encode())


def test_a_full_disk_fails_what_needs_room_and_nothing_is_half_done(
    small_disk: Path, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Who cannot be stored is told that nothing changed; when there is room again, the same lane goes on."""
    url = postgres_server.create_database()
    _move(url, postgres_server)
    store = PostgresStore.opened(url, tmp_path, 1, lanes=1)
    lane = store.lane()
    stored: list[str] = []
    _read(store)

    def save_big(number: int) -> Receipt:
        job = msgspec.structs.replace(new_job(f"job-{number}"), parameters={"path": os.urandom(1_000_000).hex()})
        transition = store.transition(job)
        return lane.submit(lambda transaction: transaction.save(transition)).result()

    def fill() -> None:
        stored.extend(save_big(number).record_id for number in range(40))

    with pytest.raises(LedgerUnavailableError, match="No space left"):
        fill()
    assert stored
    assert store.reads.job(f"job-{len(stored)}", None) is None
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    again = save_big(len(stored))
    assert store.rows("SELECT count(*), count(DISTINCT record_id) FROM job_versions") == [(len(stored) + 1,) * 2]
    numbers = store.rows("SELECT number FROM audit_records WHERE stream_id = ? ORDER BY number", again.stream_id)
    assert [number for (number,) in numbers] == list(range(1, len(numbers) + 1))
    assert store.verify().findings == ()
    store.close()


def _read(store: PostgresStore) -> None:
    """Have a session for reads, before there is no room: a new one may want to write files of its own."""
    assert store.reads.job("job-none", None) is None


def test_what_needs_no_room_goes_on_while_the_disk_is_full(
    small_disk: Path, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """A neighbour in the same group is not failed by a change that is too large for what is left."""
    url = postgres_server.create_database()
    _move(url, postgres_server)
    store = PostgresStore.opened(url, tmp_path, 2, lanes=1)
    lane = store.lane()
    lane.submit(lambda transaction: transaction.save(store.fact())).result()
    _read(store)

    def too_large(transaction: Transaction) -> Receipt:
        parameters = {"path": os.urandom(20_000_000).hex()}
        return transaction.save(store.transition(msgspec.structs.replace(new_job("job-big"), parameters=parameters)))

    failing = lane.submit(too_large)
    going_on = lane.submit(lambda transaction: transaction.save(store.fact()))
    with pytest.raises(LedgerUnavailableError):
        failing.result()
    assert going_on.result().sequence_number == 3
    assert store.reads.job("job-big", None) is None
    store.close()


def test_a_full_disk_is_seen_by_a_trial(small_disk: Path, postgres_server: PostgresServer, tmp_path: Path) -> None:
    """A trial needs the room that a change needs, though it leaves nothing behind."""
    url = postgres_server.create_database()
    _move(url, postgres_server)
    store = PostgresStore.opened(url, tmp_path, 3, lanes=1)
    now_s = itertools.count(0, 100)
    ledger = WatchedLedger(store.lane(), lambda: store.system_record("audit.stream.open"), lambda: float(next(now_s)))
    assert ledger.problem() is None
    fill(small_disk)

    def is_full() -> bool:
        # What free pages are left is used up by what real changes leave there.
        ledger.submit(lambda transaction: transaction.save(store.fact())).exception()
        return ledger.problem() == "changes cannot be committed: the server has no room"

    poll_until(is_full, "the last pages to be full")
    (small_disk / "ballast").unlink()
    assert ledger.problem() is None
    store.close()
