"""How a process gets to its PostgreSQL: URLs, settings that promises rest on, migrations, sessions that run out."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from service.config import read_settings
from service.errors import BrokenLedgerError, LedgerBusyError, LedgerUnavailableError, SettingsError
from service.store.opening import is_empty
from service.store.postgres import migrate as migrate_module
from service.store.postgres.connection import Session, connect, place_of, translate
from service.store.postgres.migrate import MIGRATIONS, schema_version
from service.store.postgres.opening import durability, migrate_database, read
from service.store.postgres.pool import SessionPool
from service.store.postgres.session_settings import settle
from service.store.postgres.snapshot import snapshot
from service.store.queries import Execute
from service.store.urls import is_postgres
from tests.support.poll_until import poll_until
from tests.support.postgres import PostgresServer, running_server


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    """A database of the test's own, with the newest schema."""
    return postgres_server.create_database()


@pytest.fixture
def bare_url(postgres_server: PostgresServer) -> str:
    """A database of the test's own, with nothing in it."""
    return postgres_server.create_database("template0")


@pytest.fixture
def pool(url: str) -> Iterator[SessionPool]:
    """A pool of two sessions that waits only a moment for one."""
    opened = SessionPool(url, read_only=True, size=2, timeout_s=0.1)
    yield opened
    opened.close()


def _shown(session: psycopg.Connection[tuple[str]], setting: str) -> str:
    ((value,),) = session.execute(f"SHOW {setting}".encode()).fetchall()
    return value


def test_both_forms_of_a_url_name_a_postgresql() -> None:
    """`postgresql://` and `postgres://` do; a file does not."""
    assert is_postgres("postgresql://audit@db.example/audit")
    assert is_postgres("postgres:///audit")
    assert not is_postgres("sqlite:///var/auditrace.db")


@pytest.mark.parametrize("wrong", ["sqlite:///x", "postgresql://u:pa%ss@h/d"])
def test_a_malformed_url_is_a_mistake_in_the_settings(wrong: str) -> None:
    """It says what is expected, and never shows a password."""
    with pytest.raises(SettingsError, match="postgresql://user@host/database") as raised:
        connect(wrong)
    assert "pa%ss" not in str(raised.value)


def test_what_a_url_leaves_out_comes_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `PG*` variables mean what they mean to every client of PostgreSQL."""
    stated = psycopg.conninfo.conninfo_to_dict(url)
    for name, variable in (("host", "PGHOST"), ("dbname", "PGDATABASE"), ("user", "PGUSER")):
        monkeypatch.setenv(variable, str(stated[name]))
    monkeypatch.setenv("PGAPPNAME", "of the environment")
    with connect("postgresql://") as session:
        assert session.info.dbname == stated["dbname"]
        assert _shown(session, "application_name") == "of the environment"


def test_a_place_shows_no_password() -> None:
    """What names a database in reports and messages is free of credentials."""
    assert place_of("postgresql://audit:secret@db.example/ledger?options=x") == "postgresql://db.example/ledger"


@pytest.mark.parametrize(
    ("found", "kept"), [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")]
)
def test_a_commit_is_durable_whatever_the_server_is_set_to(url: str, found: str, kept: str) -> None:
    """A session that would not wait for the disk is made to; one that waits for more is left as it is."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"ALTER DATABASE {session.info.dbname} SET synchronous_commit = {found}".encode())
    with connect(url) as session:
        assert _shown(session, "synchronous_commit") == kept


def test_a_session_that_reads_cannot_write(url: str) -> None:
    """The server itself refuses."""
    with connect(url, read_only=True) as session, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        session.execute("DELETE FROM leases")


def test_a_server_that_cannot_be_reached_is_a_reason_to_try_later() -> None:
    """Nothing is promised about a server that does not answer."""
    with pytest.raises(LedgerUnavailableError, match="cannot be used"):
        connect("postgresql:///audit?host=/nowhere")


def test_errors_of_the_driver_say_what_the_receiver_can_do() -> None:
    """Busy and unavailable pass; what the database refuses does not."""
    assert isinstance(translate(psycopg.errors.DeadlockDetected("x")), LedgerBusyError)
    assert isinstance(translate(psycopg.errors.LockNotAvailable("x")), LedgerBusyError)
    assert isinstance(translate(psycopg.errors.QueryCanceled("x")), LedgerBusyError)
    assert isinstance(translate(psycopg.errors.DiskFull("x")), LedgerUnavailableError)
    assert isinstance(translate(psycopg.errors.TooManyConnections("x")), LedgerUnavailableError)
    assert isinstance(translate(psycopg.errors.ReadOnlySqlTransaction("x")), LedgerUnavailableError)
    assert isinstance(translate(psycopg.errors.AdminShutdown("x")), LedgerUnavailableError)
    assert isinstance(translate(psycopg.errors.ForeignKeyViolation("x")), BrokenLedgerError)
    assert isinstance(translate(psycopg.errors.UndefinedTable("x")), BrokenLedgerError)


def test_a_new_database_is_brought_to_the_newest_schema_once(bare_url: str) -> None:
    """Every step is applied in order and named; the second time there is nothing to do."""
    assert read(bare_url, is_empty)
    assert migrate_database(bare_url) == [step.name for step in MIGRATIONS]
    assert migrate_database(bare_url) == []
    assert read(bare_url, is_empty)


def test_processes_that_migrate_at_once_do_not_disturb_each_other(bare_url: str) -> None:
    """Each step is applied by one of them, and each of them finds the newest schema afterwards."""
    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(migrate_database, [bare_url] * 4))
    assert sorted(name for names in applied for name in names) == [step.name for step in MIGRATIONS]


def test_a_process_that_migrates_between_two_looks_is_no_other_program(
    bare_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two first starts, one sees an empty database, and a moment later the tables that the other has made."""
    turns = iter([True])

    def look(session: Session) -> int:
        version = schema_version(session)
        if next(turns, False):
            assert migrate_database(bare_url) != []
        return version

    monkeypatch.setattr(migrate_module, "schema_version", look)
    assert migrate_database(bare_url) == []


def test_a_step_that_fails_leaves_nothing_behind(bare_url: str) -> None:
    """A step is applied whole or not at all, and can be repeated once the reason is gone."""
    with psycopg.connect(bare_url, autocommit=True) as session:
        session.execute("CREATE TYPE job_runs AS ENUM ('in the way')")
        with pytest.raises(BrokenLedgerError):
            migrate_database(bare_url)
        assert session.execute("SELECT to_regclass('jobs')").fetchall() == [(None,)]
        session.execute("DROP TYPE job_runs")
    assert migrate_database(bare_url) == [step.name for step in MIGRATIONS[1:]]


def test_a_database_of_a_newer_version_is_left_alone(url: str) -> None:
    """A process that is older than the schema says so."""
    with connect(url) as session:
        session.execute("INSERT INTO schema_steps (number, name) VALUES (9999, 'of_the_future.sql')")
        assert schema_version(session) == 9999
    with pytest.raises(SettingsError, match="newer version"):
        migrate_database(url)


def test_a_database_in_another_encoding_is_refused(postgres_server: PostgresServer) -> None:
    """Bodies are UTF-8, so the database has to hold all of it."""
    with psycopg.connect(postgres_server.url(), autocommit=True) as session:
        session.execute("CREATE DATABASE in_ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    with pytest.raises(SettingsError, match="SQL_ASCII"):
        migrate_database(postgres_server.url("in_ascii"))


def test_settings_that_take_from_durability_are_named(url: str) -> None:
    """The test server is fast because it promises nothing, and `doctor` says which settings do that."""
    found = durability(url, needs_standby=True)
    assert [problem.split(" is ")[0] for problem in found.problems] == [
        "fsync",
        "full_page_writes",
        "synchronous_standby_names",
    ]
    assert [problem.split(" is ")[0] for problem in durability(url, needs_standby=False).problems] == [
        "fsync",
        "full_page_writes",
    ]


def test_a_standby_is_required_unless_that_is_given_up_in_so_many_words() -> None:
    """Only the two words count; anything else is a mistake in the settings."""
    assert read_settings({}).needs_standby
    assert not read_settings({"AUDITRACE_POSTGRES_STANDBY": "optional"}).needs_standby
    with pytest.raises(SettingsError, match="AUDITRACE_POSTGRES_STANDBY: 'no' is none of required, optional"):
        read_settings({"AUDITRACE_POSTGRES_STANDBY": "no"})


def test_who_finds_no_free_session_is_told_to_try_later(pool: SessionPool) -> None:
    """Reads wait for a session for a while; when all stay in use they give up, and no session is lost by it."""
    started, go = threading.Barrier(3), threading.Event()

    def hold(_: Execute) -> int:
        started.wait(60)
        go.wait(60)
        return 1

    holders = [threading.Thread(target=pool.run, args=(hold,)) for _ in range(2)]
    for holder in holders:
        holder.start()
    started.wait(60)
    with pytest.raises(LedgerBusyError):
        pool.run(lambda _: 1)
    go.set()
    for holder in holders:
        holder.join()
    assert [pool.run(lambda execute: list(execute("parked_count", {}))) for _ in range(3)] == [[(0,)]] * 3


def test_a_read_whose_connection_was_lost_is_made_again(pool: SessionPool, url: str) -> None:
    """Reading twice does no harm, so a restart of the server is not noticed by who reads after it."""
    pids = [pid for (pid,) in pool.run(lambda execute: list(execute("own_pid", {})))]
    with psycopg.connect(url, autocommit=True) as other:
        for pid in pids:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
        poll_until(lambda: other.execute(gone, [pids]).fetchall() == [(0,)], "the session to end")
    assert pool.run(lambda execute: list(execute("parked_count", {}))) == [(0,)]


@pytest.mark.parametrize(("is_long", "limits"), [(False, ["30s", "10s"]), (True, ["0", "0"])])
def test_only_reads_of_the_whole_database_have_no_time_limits(url: str, is_long: bool, limits: list[str]) -> None:
    """A short read of a server that stands still ends, so that a process that waits for it can stop."""
    with snapshot(url, is_long=is_long) as session:
        shown = [_shown(session, name) for name in ("statement_timeout", "idle_in_transaction_session_timeout")]
        assert shown == limits
        assert _shown(session, "transaction_isolation") == "repeatable read"


class _Interrupted(psycopg.Connection[Any]):
    """A connection that fails after some statements."""

    statements = 0

    def execute(self, *arguments: Any, **more: Any) -> psycopg.Cursor[Any]:
        if not self.statements:
            raise InterruptedError
        self.statements -= 1
        return super().execute(*arguments, **more)


def test_a_session_has_all_settings_or_none(url: str) -> None:
    """A pooler that begins to lend sessions lends none that looks for the ledger where it is not."""
    for statements in itertools.count():
        with _Interrupted.connect(url, autocommit=True) as session:
            session.statements = statements
            try:
                settle(session, {})
            except InterruptedError:
                assert session.cursor().execute("SHOW search_path").fetchall() == [('"$user", public',)]
            else:
                assert session.cursor().execute("SHOW search_path").fetchall() == [("public, pg_temp",)]
                break
    assert statements > 3


def test_a_server_of_the_tests_makes_its_template_when_it_is_needed() -> None:
    """Tests may ask for an empty database first, in whatever order they run."""
    with running_server() as server:
        server.create_database("template0")
        with connect(server.create_database()) as session:
            assert schema_version(session) > 0
