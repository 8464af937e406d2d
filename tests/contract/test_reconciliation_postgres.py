"""What can be wrong in a PostgreSQL alone: indices, switches, partitions; the rest is in test_reconciliation.py."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest

from service.errors import SettingsError
from tests.contract.sound_ledger import PostgresLedger, make_sound
from tests.support.both_stores import POSTGRES
from tests.support.postgres import PostgresServer

Session: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Break: TypeAlias = Sequence[str] | Callable[[Session], None]

_CANCELLED = "event_name = 'job.cancel'"
_KEY_OF_CANCELLED = f"record_id = (SELECT record_id FROM audit_records WHERE {_CANCELLED})"
_OF_CLOSED_STREAM = "stream_id = (SELECT stream_id FROM audit_streams WHERE closed = 1 ORDER BY opened_ns LIMIT 1)"


@pytest.fixture(scope="module")
def sound(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> PostgresLedger:
    """A database in which everything has happened once, and nothing is wrong."""
    made = make_sound(POSTGRES, tmp_path_factory.mktemp("sound"), lambda: postgres_server)
    assert isinstance(made, PostgresLedger)
    assert made.reconcile() == []
    return made


@pytest.fixture
def ledger(sound: PostgresLedger, tmp_path: Path) -> Iterator[PostgresLedger]:
    """A copy of it that a test may break."""
    copy = sound.copy(tmp_path)
    yield copy
    copy.drop()


def _empty_an_index(session: Session) -> None:
    """Let an index know nothing of the rows of its table, as a broken restore or file system does."""
    session.execute("UPDATE pg_index SET indisready = false WHERE indexrelid = 'jobs_by_creator'::regclass")
    session.execute("SET session_replication_role = replica")
    session.execute(
        "INSERT INTO jobs SELECT job_id || '-', tenant_id, template, status, version, created_by, created_ns,"
        " not_before_ns, replace(document, job_id, job_id || '-') FROM jobs LIMIT 1"
    )
    session.execute("UPDATE pg_index SET indisready = true WHERE indexrelid = 'jobs_by_creator'::regclass")
    # The row stays for the index alone: all else is as it was.
    session.execute("DELETE FROM jobs WHERE job_id NOT LIKE '%-' AND job_id || '-' IN (SELECT job_id FROM jobs)")
    session.execute("UPDATE pg_index SET indisready = false WHERE indexrelid = 'jobs_by_creator'::regclass")
    session.execute(
        "UPDATE jobs SET job_id = rtrim(job_id, '-'), document = replace(document, job_id, rtrim(job_id, '-'))"
        " WHERE job_id LIKE '%-'"
    )
    session.execute("UPDATE pg_index SET indisready = true WHERE indexrelid = 'jobs_by_creator'::regclass")


def _empty_a_partition(session: Session) -> None:
    ((name,),) = session.execute("SELECT min(name) FROM record_partitions").fetchall()
    session.execute(f"DROP TRIGGER audit_records_are_not_emptied ON {name}".encode())


BREAKS: dict[str, tuple[Break, set[str]]] = {
    "an index lacks a row": (_empty_an_index, {"integrity"}),
    "a key of a record names another place": (
        [f"UPDATE audit_record_keys SET observed_ns = observed_ns + 1 WHERE {_KEY_OF_CANCELLED}"],
        {"integrity"},
    ),
    "a trigger is gone": (["DROP TRIGGER audit_records_are_not_changed ON audit_records"], {"schema"}),
    "a trigger is switched off": (["ALTER TABLE jobs DISABLE TRIGGER jobs_stay"], {"schema"}),
    "a partition may be emptied": (_empty_a_partition, {"schema"}),
    "a trigger does nothing": (
        ["CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$"],
        {"schema"},
    ),
    "a trigger was added": (
        ["CREATE TRIGGER quiet AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION refuse('quiet')"],
        {"schema"},
    ),
    "a constraint is gone": (
        ["ALTER TABLE audit_record_keys DROP CONSTRAINT audit_record_keys_stream_id_number_key CASCADE"],
        {"schema"},
    ),
    "rows are hidden": (["ALTER TABLE audit_records ENABLE ROW LEVEL SECURITY"], {"schema"}),
    "a record of no stream": (
        [
            "DELETE FROM audit_anchors WHERE " + _OF_CLOSED_STREAM,
            "DELETE FROM delivery_cursors WHERE " + _OF_CLOSED_STREAM,
            "DELETE FROM audit_streams WHERE " + _OF_CLOSED_STREAM,
        ],
        {"foreign_keys"},
    ),
    "a delivered record is gone": (
        [f"DELETE FROM audit_records WHERE {_CANCELLED}"],
        {"integrity", "version_without_record", "verify"},
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_what_is_broken_in_the_database_is_found(ledger: PostgresLedger, broken: str) -> None:
    """With its place, and nothing else is said to be wrong."""
    how, expected = BREAKS[broken]
    if callable(how):
        with psycopg.connect(ledger.url, autocommit=True) as session:
            how(session)
    else:
        ledger.carry_out("SET session_replication_role = replica", *how)
    found = ledger.reconcile()
    assert {one.check for one in found} == expected, found
    assert all(one.place and one.detail for one in found)


def test_a_role_that_may_not_make_a_schema_is_told_which_may(
    sound: PostgresLedger, postgres_server: PostgresServer
) -> None:
    """The comparison of the schema needs the role that migrates; without it nothing is said to be wrong."""
    with psycopg.connect(sound.url, autocommit=True) as session:
        session.execute("DROP ROLE IF EXISTS reader")
        session.execute("CREATE ROLE reader LOGIN")
        session.execute("GRANT pg_read_all_data TO reader")
    with pytest.raises(SettingsError, match="the role that migrates"):
        PostgresLedger(postgres_server, sound.url.replace("user=auditrace", "user=reader")).reconcile()
