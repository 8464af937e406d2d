"""No setting of a server, database, role or URL changes what a statement of the ledger means."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
import psycopg
import pytest

from service.bootstrap.databases import database_of
from service.errors import LedgerUnavailableError, SettingsError
from service.ports import Transition
from service.store.opening import is_empty
from service.store.postgres.connection import connect
from service.store.postgres.opening import migrate_database, read
from service.store.postgres.reconciliation import reconcile
from service.store.postgres.session_settings import ALWAYS
from telemetry import names
from telemetry.audit.record import Target
from telemetry.audit.verify import verify
from tests.support.ledger_maker import KEY
from tests.support.poll_until import poll_until
from tests.support.postgres import SUPERUSER, PostgresServer
from tests.support.postgres_hostile import HOSTILE, make_evil_schema, set_hostile
from tests.support.postgres_stores import PostgresStore
from tests.support.stores import SECRET, new_job


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of the test's own."""
    made = postgres_server.create_database()
    yield made
    postgres_server.drop_database(made)


def _tell_story(url: str, folder: Path) -> None:
    """Commit a job with its record, sign over it, read it, verify and reconcile it."""
    store = PostgresStore.opened(url, folder, 1, lanes=1)
    lane = store.lane()
    # Backslashes, quotes and more than Latin letters, as parameters have them.
    parameters = {"path": "\\u0000 '\\' \u20ac \U0001f600 \0"}
    job = msgspec.structs.replace(new_job(), parameters=parameters)
    created = {names.AUDITRACE_CHANGES: {"status": {"to": "created"}}}
    record = store.record(target=Target("job", job.job_id, 1), more=created)
    receipt = lane.submit(lambda transaction: transaction.save(Transition(record=record, job=job))).result()
    writer = store.checkpoints(lane)
    assert writer.write() is not None
    stored = store.reads.job(job.job_id, None)
    assert stored is not None
    assert stored.parameters == parameters
    assert store.reads.record(receipt.record_id, None) is not None
    assert store.outbox().take(10, 10_000_000)
    report = verify(database_of(url).records(), public_keys=[KEY.public_key()])
    assert (report.verdict, report.findings) == ("intact", ())
    assert list(reconcile(url, SECRET)) == []
    store.close()


@pytest.mark.parametrize("level", ["database", "role"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_setting_changes_nothing(url: str, tmp_path: Path, level: str, name: str) -> None:
    """Each by itself, set for the database or for the role: everything goes as without it, and reconciles."""
    make_evil_schema(url)
    set_hostile(url, level, name)
    _tell_story(url, tmp_path)


@pytest.mark.parametrize("level", ["database", "role"])
def test_every_session_sets_everything_itself(url: str, level: str) -> None:
    """Whatever the server knows of it has the value that the ledger wants, once all are hostile."""
    make_evil_schema(url)
    set_hostile(url, level, *HOSTILE)
    with connect(url) as session:
        found = dict(session.execute("SELECT name, current_setting(name) FROM pg_settings").fetchall())
    assert {name: found[name] for name in ALWAYS if name in found} == {
        name: value for name, value in ALWAYS.items() if name in found
    }
    assert set(ALWAYS) - found.keys() <= {"transaction_timeout", "restrict_nonsystem_relation_kind"}


def test_a_database_is_begun_under_hostile_settings(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """What the migrations make is the same then, and lies where the path says first."""
    url = postgres_server.create_database("template0")
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE SCHEMA audit")
    make_evil_schema(url)
    set_hostile(url, "database", *HOSTILE)
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"ALTER DATABASE {session.info.dbname} SET search_path = audit, evil, pg_catalog".encode())
    assert read(url, is_empty)
    migrate_database(url)
    _tell_story(url, tmp_path)
    with psycopg.connect(url, autocommit=True) as session:
        assert session.execute("SELECT count(*) > 0 FROM audit.audit_records").fetchall() == [(True,)]
    postgres_server.drop_database(url)


def test_settings_in_the_url_change_nothing(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do those of `PGOPTIONS`, `PGCLIENTENCODING`, `PGTZ` and `PGDATESTYLE`."""
    options = "-c standard_conforming_strings=off -c session_replication_role=replica -c synchronous_commit=off"
    _tell_story(f"{url}&options={quote(options)}&client_encoding=LATIN1", tmp_path)
    for name, value in {
        "PGOPTIONS": options,
        "PGCLIENTENCODING": "LATIN1",
        "PGTZ": "Asia/Kathmandu",
        "PGDATESTYLE": "SQL, DMY",
    }.items():
        monkeypatch.setenv(name, value)
    with connect(url) as session:
        for name, expected in {
            "standard_conforming_strings": "on",
            "session_replication_role": "origin",
            "synchronous_commit": "on",
            "client_encoding": "UTF8",
            "TimeZone": "UTC",
            "DateStyle": "ISO, MDY",
        }.items():
            assert session.execute("SELECT current_setting(%s)", [name]).fetchall() == [(expected,)]


def test_records_are_ordered_alike_whatever_the_collation(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Also in a database that sorts digits by their value and letters as people do."""
    with psycopg.connect(postgres_server.url(), autocommit=True) as session:
        session.execute(
            "CREATE DATABASE numeric_order LOCALE_PROVIDER icu ICU_LOCALE 'en-u-kn-true' TEMPLATE template0"
        )
    url = postgres_server.url("numeric_order")
    migrate_database(url)
    _tell_story(url, tmp_path)
    postgres_server.drop_database(url)


def test_a_schema_named_like_the_role_hides_no_ledger(url: str, tmp_path: Path) -> None:
    """It comes first in the server's own path; the ledger that is there already is found all the same."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"CREATE SCHEMA {SUPERUSER}".encode())
    assert migrate_database(url) == []
    _tell_story(url, tmp_path)


def test_a_path_without_a_schema_is_refused(url: str) -> None:
    """There is no place for a ledger: one line says so."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"ALTER DATABASE {session.info.dbname} SET search_path = nowhere".encode())
    with pytest.raises(SettingsError, match="search_path names no schema"):
        connect(url)


def test_who_may_not_switch_triggers_on_is_refused_where_they_are_off(url: str) -> None:
    """Without triggers and constraints the database refuses nothing of what it must refuse."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("DROP ROLE IF EXISTS plain")
        session.execute("CREATE ROLE plain LOGIN")
        set_hostile(url, "database", "session_replication_role")
        with pytest.raises(SettingsError, match="session_replication_role is replica"):
            connect(url.replace(f"user={SUPERUSER}", "user=plain"))


def test_a_lane_commits_nothing_once_triggers_are_switched_off(
    postgres_server: PostgresServer, url: str, tmp_path: Path
) -> None:
    """A reload of the server reaches the sessions of a role that may not set it, so that lanes look each time."""
    plain = _plain_role(url)
    store = PostgresStore.opened(plain, tmp_path, 1, lanes=1)
    lane = store.lane()
    lane.submit(lambda transaction: transaction.save(store.fact())).result()
    with psycopg.connect(postgres_server.url(), autocommit=True) as session:
        try:
            session.execute("ALTER SYSTEM SET session_replication_role = replica")
            session.execute("SELECT pg_reload_conf()")
            poll_until(lambda: _shown(plain, "session_replication_role") == "replica", "the server to reload")
            failure = lane.submit(lambda transaction: transaction.save(store.fact())).exception()
            assert isinstance(failure, LedgerUnavailableError)
            assert "session_replication_role is replica" in failure.detail
        finally:
            session.execute("ALTER SYSTEM RESET session_replication_role")
            session.execute("SELECT pg_reload_conf()")
            poll_until(lambda: _shown(plain, "session_replication_role") == "origin", "the server to reload")
    lane.submit(lambda transaction: transaction.save(store.fact())).result()
    store.close()


def test_rows_that_a_policy_hides_are_an_error_and_not_a_shorter_answer(url: str, tmp_path: Path) -> None:
    """Whoever adds row security to a table of the ledger stops the service; nothing is listed in part."""
    plain = _plain_role(url)
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("ALTER TABLE jobs ENABLE ROW LEVEL SECURITY")
    store = PostgresStore.opened(plain, tmp_path, 1, lanes=1)
    with pytest.raises(LedgerUnavailableError, match="row-level security"):
        store.reads.job("job-1", None)
    store.close()


def _plain_role(url: str) -> str:
    """Return the URL by which a role that is no superuser, and may do all that a service does, gets to the database."""
    with psycopg.connect(url, autocommit=True) as session:
        for statement in (
            "DO $$ BEGIN CREATE ROLE plain LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO plain",
        ):
            session.execute(statement.encode())
    return url.replace(f"user={SUPERUSER}", "user=plain")


def _shown(url: str, name: str) -> str:
    with psycopg.connect(url, autocommit=True) as session:
        ((value,),) = session.execute("SELECT current_setting(%s)", [name]).fetchall()
    return str(value)
