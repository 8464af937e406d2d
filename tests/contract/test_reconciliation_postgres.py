"""The reconciliation of a PostgreSQL finds, by the check that is meant for it, whatever contradicts itself."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import psycopg
import pytest

from service.errors import SettingsError
from service.jobs.model import Status, TenantId
from service.operations.keys import KeyOperations
from service.ports import Discrepancy
from service.records import AuditContext
from service.roles import ADMIN
from service.secrets import DeploymentSecret
from service.store.postgres.migrate import migrations
from service.store.postgres.reconciliation import CHECKS, reconcile
from service.store.sqlite import reconciliation as of_sqlite
from telemetry.audit.record import Actor
from tests.support.both_stores import POSTGRES
from tests.support.jobs import Jobs
from tests.support.postgres import PostgresServer
from tests.support.postgres_stores import PostgresStore
from tests.support.stores import SECRET

Session: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Break: TypeAlias = Sequence[str] | Callable[[Session], None]

_OTHER_BYTES = b"other bytes"
_OTHER_SHA256 = hashlib.sha256(_OTHER_BYTES).hexdigest()
_CANCELLED = "event_name = 'job.cancel'"
_KEY_OF = "record_id = (SELECT record_id FROM audit_records WHERE {})"
_LAST_FACT = "observed_ns = (SELECT max(observed_ns) FROM audit_records WHERE event_name = 'job.create')"
_OF_CLOSED_STREAM = "stream_id = (SELECT stream_id FROM audit_streams WHERE closed = 1 ORDER BY opened_ns LIMIT 1)"
_SUCCEEDED = """jsonb_set(document::jsonb, '{status}', '"succeeded"')::text"""
_OTLP_OF_MARY = "decode(replace(encode(otlp, 'hex'), encode('anna', 'hex'), encode('mary', 'hex')), 'hex')"
_BY_MALLORY = """jsonb_set(document::jsonb, '{created_by}', '"mallory"')::text"""


def _name_of(url: str) -> str:
    return url.split("///")[1].split("?")[0]


def _pass_time_again(url: str) -> None:
    """Put back the clock that the tests had replaced, which is part of the schema."""
    clock = migrations()[0].sql.split("CREATE FUNCTION ledger_now_ns()")[1].split("$$;")[0]
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"CREATE OR REPLACE FUNCTION ledger_now_ns(){clock}$$".encode())
        session.execute("DROP SEQUENCE test_clock")


@pytest.fixture(scope="module")
def sound(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database in which everything has happened once, and nothing is wrong."""
    folder = tmp_path_factory.mktemp("sound")
    store = PostgresStore(postgres_server, folder, is_running=True)
    jobs = Jobs(folder, store=store)
    client = jobs.client("anna")
    waiting = client.create("shell", {"script": "true"}).value.job_id
    client.write_input(waiting, "data.csv", b"1,2,3")
    client.write_input(waiting, "data.csv", b"4,5,6")
    failing = jobs.queued("echo gone > out/lost.txt; exit 3").job_id
    client.cancel(jobs.queued("true").job_id)
    jobs.worker()
    jobs.until(failing, Status.FAILED)
    client.retry(failing)
    jobs.until(failing, Status.FAILED)
    context = AuditContext(
        actor=Actor("root", "system"), tenant_id=TenantId("default"), source="cli", roles=frozenset({ADMIN})
    )
    keys = KeyOperations(jobs.services, context, jobs.services.tracing.root("keys"))
    keys.create("kept", ["viewer", "operator"], TenantId("default"))
    keys.create("revoked", ["admin"], TenantId("acme"))
    keys.revoke("revoked", TenantId("acme"))
    jobs.close()
    writer = store.checkpoints(jobs.lane)
    jobs.lane.close(writer.write_last)
    lane = store.lane("later")
    writer = store.checkpoints(lane)
    for _ in range(3):
        lane.submit(lambda transaction: transaction.save(store.fact())).result()
        writer.write()
    lane.submit(lambda transaction: transaction.save(store.fact())).result()
    outbox = store.outbox()
    outbox.delivered(outbox.take(20, 2**20))
    store.close()
    _pass_time_again(store.url)
    with psycopg.connect(store.url, autocommit=True) as session:
        session.execute("CREATE EXTENSION amcheck")
    assert list(reconcile(store.url, SECRET)) == []
    return store.url


@pytest.fixture
def copy(sound: str, postgres_server: PostgresServer) -> Iterator[str]:
    """A copy of it that a test may break."""
    url = postgres_server.create_database(_name_of(sound))
    yield url
    postgres_server.drop_database(url)


def _attack(url: str, how: Break) -> None:
    """Carry out what no trigger, foreign key or constraint holds back."""
    with psycopg.connect(url, autocommit=True) as session:
        if callable(how):
            how(session)
            return
        session.execute("SET session_replication_role = replica")
        for statement in how:
            if session.execute(statement.encode()).rowcount == 0:
                raise AssertionError(f"nothing was changed by: {statement}")


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


BREAKS: dict[str, tuple[Break, set[str]]] = {
    "an index lacks a row": (_empty_an_index, {"integrity"}),
    "a key of a record names another place": (
        [f"UPDATE audit_record_keys SET observed_ns = observed_ns + 1 WHERE {_KEY_OF.format(_CANCELLED)}"],
        {"integrity"},
    ),
    "a trigger is gone": (["DROP TRIGGER audit_records_are_not_changed ON audit_records"], {"schema"}),
    "a trigger is switched off": (["ALTER TABLE jobs DISABLE TRIGGER jobs_stay"], {"schema"}),
    "a partition may be emptied": (
        lambda session: _on_a_partition(session, "DROP TRIGGER audit_records_are_not_emptied ON {}"),
        {"schema"},
    ),
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
    "a table is gone": (["DROP TABLE tenant_turns"], {"schema"}),
    "a secret of no job": (["INSERT INTO job_secrets VALUES ('nobody', 'token', '')"], {"foreign_keys"}),
    "a record of no stream": (
        [
            "DELETE FROM audit_anchors WHERE " + _OF_CLOSED_STREAM,
            "DELETE FROM delivery_cursors WHERE " + _OF_CLOSED_STREAM,
            "DELETE FROM audit_streams WHERE " + _OF_CLOSED_STREAM,
        ],
        {"foreign_keys"},
    ),
    "a version has a record that is not there": (
        ["UPDATE job_versions SET record_id = 'gone' WHERE (job_id, version) = (SELECT min(job_id), 1 FROM jobs)"],
        {"foreign_keys", "version_without_record", "record_without_version"},
    ),
    "a version is gone": (
        ["DELETE FROM job_versions WHERE version = 2 AND status = 'draft_ready'"],
        {"foreign_keys", "record_without_version", "version_gap", "change_differs"},
    ),
    "a job was changed without a version": (
        [f"UPDATE jobs SET status = 'succeeded', document = {_SUCCEEDED}"],
        {"foreign_keys", "job_differs", "document_differs"},
    ),
    "a document was changed": ([f"UPDATE jobs SET document = {_BY_MALLORY}"], {"document_differs"}),
    "a version's status was changed": (
        ["UPDATE job_versions SET status = 'confirmed' WHERE version = 2 AND status = 'draft_ready'"],
        {"change_differs"},
    ),
    "a record's actor was changed where it is found by": (
        ["UPDATE audit_records SET actor_id = 'mallory' WHERE " + _CANCELLED],
        {"column_differs"},
    ),
    "a record's time was changed where it is found by": (
        ["UPDATE audit_records SET timestamp_ns = timestamp_ns + 1 WHERE " + _CANCELLED],
        {"column_differs"},
    ),
    "a record's observed time was changed where it is found by": (
        ["UPDATE audit_records SET observed_ns = observed_ns - 1 WHERE " + _CANCELLED],
        {"column_differs", "integrity"},
    ),
    "a record is found under another job": (
        ["UPDATE audit_records SET job_id = NULL WHERE " + _CANCELLED],
        {"column_differs"},
    ),
    "a run is of another worker": (["UPDATE job_runs SET worker_id = 'mallory'"], {"run_differs"}),
    "a run is gone": (["DELETE FROM job_artifacts", "DELETE FROM job_runs WHERE number = 1"], {"run_differs"}),
    "an artifact has other bytes": (["UPDATE job_artifacts SET payload = '\\x00'"], {"content_differs"}),
    "an input was exchanged": (
        [f"UPDATE job_inputs SET payload = '\\x{_OTHER_BYTES.hex()}', size = 11, sha256 = '{_OTHER_SHA256}'"],
        {"input_without_record"},
    ),
    "an input is an earlier one": (
        [f"UPDATE job_inputs SET payload = '1,2,3', sha256 = '{hashlib.sha256(b'1,2,3').hexdigest()}'"],
        {"input_without_record"},
    ),
    "an API key that nobody made": (
        ["INSERT INTO api_keys VALUES ('id', 'default', 'mallory', 'admin', 'hash', 1, NULL)"],
        {"key_without_record"},
    ),
    "an API key has other roles": (
        ["UPDATE api_keys SET roles = 'admin' WHERE name = 'kept'"],
        {"key_without_record"},
    ),
    "an API key is of another tenant": (
        ["UPDATE api_keys SET tenant_id = 'acme' WHERE name = 'kept'"],
        {"key_without_record"},
    ),
    "a revoked API key is accepted again": (
        ["UPDATE api_keys SET revoked_ns = NULL WHERE name = 'revoked'"],
        {"key_without_record"},
    ),
    "an API key is revoked and nobody did it": (
        ["UPDATE api_keys SET revoked_ns = 1 WHERE name = 'kept'"],
        {"key_without_record"},
    ),
    "a tip has another time": (
        [f"UPDATE audit_streams SET observed_ns = 1 WHERE {_OF_CLOSED_STREAM}"],
        {"tip_differs"},
    ),
    "a cursor is past its tip": (["UPDATE delivery_cursors SET number = number + 1000"], {"cursor_differs"}),
    "a cursor is gone": ([f"DELETE FROM delivery_cursors WHERE {_OF_CLOSED_STREAM}"], {"cursor_differs"}),
    "an undelivered record is gone": (
        [
            f"DELETE FROM audit_record_keys WHERE {_KEY_OF.format(_LAST_FACT)}",
            f"DELETE FROM audit_records WHERE {_LAST_FACT}",
        ],
        {"outbox_differs", "refused", "verify"},
    ),
    "a delivered record is gone": (
        [f"DELETE FROM audit_records WHERE {_CANCELLED}"],
        {"integrity", "version_without_record", "verify"},
    ),
    "a record is parked": (
        ["INSERT INTO parked_records SELECT stream_id, 2, '400 no', 1 FROM audit_streams WHERE closed = 1"],
        {"parked"},
    ),
    "a record is parked that was not tried": (
        [f"INSERT INTO parked_records SELECT stream_id, number, '', 1 FROM audit_records WHERE {_LAST_FACT}"],
        {"parked"},
    ),
    "a checkpoint has another time": (["UPDATE audit_checkpoints SET observed_ns = 1"], {"checkpoint_differs"}),
    "the last checkpoint's row is gone": (
        ["DELETE FROM audit_checkpoints WHERE number = (SELECT max(number) FROM audit_checkpoints)"],
        {"foreign_keys", "checkpoint_differs", "anchor_differs"},
    ),
    "a checkpoint has another signature": (
        ["UPDATE audit_checkpoints SET signature = 'AAAA' WHERE number = 1"],
        {"checkpoint_differs", "mac"},
    ),
    "an anchor was moved": (
        [f"UPDATE audit_anchors SET number = number - 1 WHERE {_OF_CLOSED_STREAM}"],
        {"anchor_differs", "mac", "refused"},
    ),
    "a closed stream's tip was stored by somebody else": (
        [f"UPDATE audit_streams SET mac = 'x' WHERE {_OF_CLOSED_STREAM}"],
        {"mac"},
    ),
    "a key that somebody else registered": (
        ["INSERT INTO signing_keys SELECT 2, 'f', 'p', 9, 1, record_id, 'x' FROM audit_records LIMIT 1"],
        {"signing_key", "verify"},
    ),
    "a stream that its lane disowned": (
        [f"INSERT INTO refused_streams SELECT stream_id, 'cut', 1, 1 FROM audit_streams WHERE {_OF_CLOSED_STREAM}"],
        {"refused"},
    ),
    "a body was edited, and the columns with it": (
        [
            f"UPDATE audit_records SET body = replace(body, 'anna', 'mary') WHERE {_CANCELLED}",
            f"UPDATE audit_records SET actor_id = 'mary' WHERE {_CANCELLED}",
        ],
        {"verify"},
    ),
    "what is delivered was edited": (
        [f"UPDATE audit_records SET otlp = {_OTLP_OF_MARY} WHERE {_CANCELLED}"],
        {"verify"},
    ),
    "a body is no JSON": (
        ["UPDATE audit_records SET body = 'x' || body WHERE " + _CANCELLED],
        {"change_differs", "column_differs", "verify"},
    ),
}


def _on_a_partition(session: Session, statement: str) -> None:
    ((name,),) = session.execute("SELECT min(name) FROM record_partitions").fetchall()
    session.execute(statement.format(name).encode())


@pytest.mark.parametrize("broken", BREAKS)
def test_what_is_broken_is_found_by_the_check_that_is_meant_for_it(copy: str, broken: str) -> None:
    """Each thing that can be wrong in a database is found, with its place, and nothing else is said to be wrong."""
    how, expected = BREAKS[broken]
    _attack(copy, how)
    found = list(reconcile(copy, SECRET))
    assert {one.check for one in found} == expected, found
    assert all(one.place and one.detail for one in found)


def test_every_check_is_shown_by_something_that_it_finds() -> None:
    """No check is there that has never found anything."""
    assert set().union(*(expected for _, expected in BREAKS.values())) == set(CHECKS)


def test_both_stores_are_looked_over_by_the_same_checks() -> None:
    """What a check is called does not depend on the database."""
    assert list(CHECKS) == list(of_sqlite.CHECKS)


def test_all_discrepancies_are_reported(copy: str) -> None:
    """Not only the first of a check, and each with the place where it is."""
    _attack(copy, [f"UPDATE jobs SET document = {_BY_MALLORY}"])
    with psycopg.connect(copy) as session:
        job_ids = [row[0] for row in session.execute("SELECT job_id FROM jobs ORDER BY job_id")]
    assert sorted(reconcile(copy, SECRET), key=lambda one: one.place) == [
        Discrepancy("document_differs", f"job {job_id}", "its document is not the one of its last version")
        for job_id in job_ids
    ]


@pytest.mark.stores(POSTGRES)
def test_a_ledger_at_work_shows_nothing_wrong(store: PostgresStore) -> None:
    """While lanes commit, checkpoints are written and records delivered, no reconciliation raises a false alarm."""
    lanes = [store.lane(f"node-{n}", count=2) for n in range(2)]
    writer = store.checkpoints(lanes[0])
    outbox = store.outbox()
    ended = threading.Event()

    def wrong() -> list[Discrepancy]:
        # The clock of the test is no part of the schema.
        return [one for one in reconcile(store.url, SECRET) if one.place != "function ledger_now_ns"]

    def work() -> None:
        while not ended.is_set():
            for lane in lanes:
                lane.submit(lambda transaction: transaction.save(store.fact())).result()
            writer.write()
            outbox.delivered(outbox.take(100, 2**20))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(8):
            assert wrong() == []
    finally:
        ended.set()
        thread.join()
    assert wrong() == []


def test_another_secret_is_no_finding_but_a_setting(sound: str) -> None:
    """With the secret of another deployment nothing can be said of this one."""
    with pytest.raises(SettingsError, match="ledger secret"):
        list(reconcile(sound, DeploymentSecret(b"other" * 8)))


def test_a_database_that_needs_a_migration_is_no_finding_but_a_setting(copy: str) -> None:
    """What an older version left is migrated first."""
    _attack(copy, ["DELETE FROM schema_steps WHERE number > 1"])
    with pytest.raises(SettingsError, match="auditrace migrate"):
        list(reconcile(copy, SECRET))


def test_a_role_that_may_not_make_a_schema_is_told_which_may(sound: str) -> None:
    """The comparison of the schema needs the role that migrates; without it nothing is said to be wrong."""
    with psycopg.connect(sound, autocommit=True) as session:
        session.execute("DROP ROLE IF EXISTS reader")
        session.execute("CREATE ROLE reader LOGIN")
        session.execute("GRANT pg_read_all_data TO reader")
    with pytest.raises(SettingsError, match="the role that migrates"):
        list(reconcile(sound.replace("user=auditrace", "user=reader"), SECRET))
