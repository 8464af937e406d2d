"""A ledger that is copied into a PostgreSQL is the same ledger there, or was not copied at all."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from service.bootstrap.copying import copied
from service.bootstrap.databases import database_of
from service.errors import BrokenLedgerError, LedgerUnavailableError, SettingsError
from service.execution.recorded import difference
from service.jobs import transitions
from service.jobs.model import Status, TenantId
from service.operations.keys import KeyOperations
from service.records import AuditContext
from service.roles import ADMIN
from service.secrets import DeploymentSecret
from service.store.copying import Copied, copy_ledger
from service.store.opening import is_empty
from service.store.postgres.connection import connect
from service.store.postgres.opening import read
from service.store.postgres.reads import PostgresReads
from service.store.postgres.reconciliation import reconcile
from telemetry.audit.record import Actor
from telemetry.audit.signer import Signer
from telemetry.audit.verify import verify
from tests.support.collector import ROOT
from tests.support.jobs import Jobs
from tests.support.ledger_maker import FOREIGN_KEY, KEY
from tests.support.postgres import PostgresServer, as_service
from tests.support.postgres_stores import PostgresStore
from tests.support.sqlite_stores import SqliteStore
from tests.support.stores import SECRET

_KEYS = (KEY.public_key(), FOREIGN_KEY.public_key())
_STEPS = ("look over the source", "copy", "compare", "look over the target", "commit", "done")
_TABLES = (
    *("audit_streams", "audit_envelopes", "audit_records", "delivery_cursors", "parked_records", "jobs"),
    *(
        "job_versions",
        "job_runs",
        "tenant_turns",
        "job_inputs",
        "job_artifacts",
        "job_secrets",
        "api_keys",
        "api_key_secrets",
    ),
    *("idempotency_keys", "signing_keys", "audit_checkpoints", "audit_anchors"),
    *("webhook_endpoints", "webhook_cursors", "tenant_storage"),
)

KILLED_AT = """
import os, signal, sys
from pathlib import Path
from service.secrets import DeploymentSecret
from service.store.copying import copy_ledger

def note(step):
    if step == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

copy_ledger(Path(sys.argv[1]), sys.argv[2], DeploymentSecret(b"s" * 32), note)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in which everything has happened that leaves a row, closed by its processes."""
    folder = tmp_path_factory.mktemp("source")
    jobs = Jobs(folder)
    client = jobs.client("anna")
    waiting = client.create("shell", {"script": "true"}, key="once").value.job_id
    client.write_input(waiting, "data.csv", bytes(range(256)))
    client.create("sign-in", {"token": "secret"})
    failing = jobs.queued("printf '\\0' > out/zero.bin; exit 3").job_id
    client.cancel(jobs.queued("true").job_id)
    jobs.worker()
    jobs.until(failing, Status.FAILED)
    context = AuditContext(
        actor=Actor("root", "system", "service"), tenant_id=TenantId("default"), source="cli", roles=frozenset({ADMIN})
    )
    keys = KeyOperations(jobs.services, context, jobs.services.tracing.root("keys"))
    keys.create("kept", ["viewer", "operator"], TenantId("default"), person="kim@example.com")
    keys.create("revoked", ["admin"], TenantId("acme"))
    keys.revoke("revoked", TenantId("acme"))
    writer = jobs.store.checkpoints(jobs.lane, Signer(KEY), Signer(FOREIGN_KEY))
    writer.write()
    writer.rotate(Signer(FOREIGN_KEY))
    writer.write()
    outbox = jobs.store.outbox()
    outbox.delivered(outbox.take(5, 2**20))
    (refused, *_) = outbox.take(1, 2**20)
    outbox.park(refused, "400: not this one")
    webhooks = jobs.store.webhooks()
    webhooks.register("siem", from_start=False)
    assert webhooks.hold("siem")
    webhooks.note("siem", "503 Service Unavailable", 1)
    path = jobs.store.path
    lane = jobs.store.lane("crashed")
    lane.submit(lambda transaction: transaction.save(jobs.store.fact())).result()
    # Before the lanes are closed: what a crash would leave.
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM INTO ?", [str(folder / "copy.db")])
    jobs.close()
    return folder / "copy.db"


@pytest.fixture
def target(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty database with the newest schema."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


def _rows_of_file(path: Path) -> dict[str, int]:
    connection = sqlite3.connect(path)
    rows = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _TABLES}
    connection.close()
    return rows


def _rows_of(url: str) -> dict[str, int]:
    with psycopg.connect(url) as session:
        return {table: session.execute(f"SELECT count(*) FROM {table}".encode()).fetchall()[0][0] for table in _TABLES}


def _edit(source: Path, folder: Path, sql: str) -> Path:
    """Return a copy of the file that somebody has edited whom no trigger holds back."""
    edited = Path(shutil.copy(source, folder / "edited.db"))
    with closing(sqlite3.connect(edited, isolation_level=None)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        assert connection.execute(sql).rowcount > 0
        for _, text in triggers:
            connection.execute(text)
    return edited


def test_every_row_is_there_and_both_sides_verify(source: Path, target: str) -> None:
    """All that the file holds is in the target, byte for byte; what a stranger finds in both is the same."""
    expected = _rows_of_file(source)
    assert all(expected.values()), expected
    done = copy_ledger(source, target, SECRET)
    assert isinstance(done, Copied)
    assert sum(done.rows.values()) == sum(expected.values())
    assert _rows_of(target) == expected
    databases = (database_of(url) for url in (f"sqlite:///{source}", target))
    before, after = (verify(database.records(), public_keys=_KEYS) for database in databases)
    assert (before.verdict, before.findings) == (after.verdict, after.findings) == ("intact", ())
    assert (before.records, before.streams, before.checkpoints) == (after.records, after.streams, after.checkpoints)
    assert [one.check for one in reconcile(target, SECRET)] == ["parked"]
    with psycopg.connect(target) as session:
        for table, column in (("job_inputs", "payload"), ("job_secrets", "ciphertext"), ("audit_records", "otlp")):
            sql = f"SELECT {column} FROM {table}"
            of_file = {row[0] for row in sqlite3.connect(source).execute(sql)}
            assert {row[0] for row in session.execute(sql.encode())} == of_file


def test_the_ledger_goes_on_where_it_was_copied_to(
    source: Path, target: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Lanes, checkpoints and deliveries continue: numbers and links follow on, what was left open is closed."""
    copy_ledger(source, target, SECRET)
    ((before,),) = connect(target).execute("SELECT max(number) FROM audit_checkpoints").fetchall()
    store = PostgresStore(postgres_server, tmp_path, is_running=True, instance=5)
    store.url, store.service_url, mine = target, as_service(target), store.url
    lane = store.lane("later")
    lane.submit(lambda transaction: transaction.save(store.fact())).result()
    written = store.checkpoints(lane, Signer(FOREIGN_KEY)).write()
    assert written is not None
    assert list(written.numbers) == [before + 1]
    assert len(written.closed) == 2
    assert (store.verify(*_KEYS).verdict, list(written.refused)) == ("intact", [])
    outbox = store.outbox()
    while records := outbox.take(100, 2**20):
        outbox.delivered(records)
    assert store.rows("SELECT count(*) FROM parked_records") == [(1,)]
    store.close()
    postgres_server.drop_database(mine)


def test_a_job_is_what_its_records_state_where_it_was_copied_to(target: str, tmp_path: Path) -> None:
    """A worker on the copy runs what was waiting in the source."""
    jobs = Jobs(tmp_path)
    job = jobs.queued("true")
    jobs.close()
    copy_ledger(Path(jobs.store.database.removeprefix("sqlite:///")), target, SECRET)
    reads = PostgresReads(as_service(target))
    stated = reads.stated_versions(job.job_id, job.version)
    assert difference(transitions.claim(job, 1), stated, SECRET) is None
    reads.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_records SET body = replace(body, 'anna', 'mary') WHERE event_name = 'job.cancel'",
        "UPDATE jobs SET document = json_set(document, '$.created_by', 'mallory')",
        "UPDATE job_inputs SET payload = x'00'",
        "DELETE FROM audit_records WHERE event_name = 'audit.key.rotate'",
        "UPDATE audit_streams SET mac = 'x'",
    ],
)
def test_what_is_wrong_in_the_source_is_not_copied(source: Path, target: str, tmp_path: Path, sql: str) -> None:
    """A file that somebody has tampered with is refused, and nothing is written."""
    edited = _edit(source, tmp_path, sql)
    with pytest.raises((BrokenLedgerError, SettingsError), match=r"in the source|ledger secret"):
        copy_ledger(edited, target, SECRET)
    assert read(target, is_empty)
    assert not any(_rows_of(target).values())


def test_what_comes_out_otherwise_is_not_committed(source: Path, target: str) -> None:
    """A target that changes what it is given is found out row by row, and nothing of it is kept."""
    with psycopg.connect(target) as session:
        session.execute(
            "CREATE FUNCTION forge() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN NEW.reason := 'all is well'; RETURN NEW; END $$"
        )
        session.execute("CREATE TRIGGER forging BEFORE INSERT ON parked_records FOR EACH ROW EXECUTE FUNCTION forge()")
    with pytest.raises(BrokenLedgerError, match="parked came out otherwise"):
        copy_ledger(source, target, SECRET)
    assert not any(_rows_of(target).values())


def test_a_source_that_is_replaced_meanwhile_is_not_copied(source: Path, target: str, tmp_path: Path) -> None:
    """What is at its path by then may be another ledger, which processes can have begun to write."""
    path = Path(shutil.copy(source, tmp_path / "ledger.db"))

    def replace(step: str) -> None:
        if step == "look over the target":
            path.rename(tmp_path / "kept.db")
            shutil.copy(source, path)

    with pytest.raises(LedgerUnavailableError, match="was moved, removed or replaced while in use"):
        copy_ledger(path, target, SECRET, replace)
    assert read(target, is_empty)


def test_a_target_whose_schema_was_changed_is_not_filled(source: Path, target: str) -> None:
    """What is looked over before the commit is the target as a whole, its triggers included."""
    with psycopg.connect(target) as session:
        session.execute("DROP TRIGGER audit_records_are_not_changed ON audit_records")
    with pytest.raises(BrokenLedgerError, match="schema"):
        copy_ledger(source, target, SECRET)
    assert not any(_rows_of(target).values())


def test_a_target_that_holds_a_ledger_is_left_alone(source: Path, target: str) -> None:
    """Two ledgers are never mixed: a second copy is refused."""
    copy_ledger(source, target, SECRET)
    rows = _rows_of(target)
    with pytest.raises(SettingsError, match="holds a ledger already"):
        copy_ledger(source, target, SECRET)
    assert _rows_of(target) == rows


def test_a_source_at_work_is_refused(target: str, tmp_path: Path) -> None:
    """While a process lives that has the file open, nothing is copied; once it has ended, all is."""
    store = SqliteStore(tmp_path)
    lane = store.lane()
    lane.submit(lambda transaction: transaction.save(store.fact())).result()
    store.checkpoints(lane).write()
    with pytest.raises(SettingsError, match="is in use by test-0-0"):
        copy_ledger(store.path, target, SECRET)
    assert read(target, is_empty)
    store.close()
    assert copy_ledger(store.path, target, SECRET).rows["streams"] == 1


def test_another_secret_is_refused(source: Path, target: str) -> None:
    """The ledger secret goes with the ledger: without it nothing that follows could be told from a forgery."""
    with pytest.raises(SettingsError, match="ledger secret"):
        copy_ledger(source, target, DeploymentSecret(b"other" * 8))
    assert read(target, is_empty)


@pytest.mark.parametrize("step", _STEPS)
def test_killed_at_any_step_it_is_all_or_nothing(source: Path, target: str, step: str) -> None:
    """SIGKILL before a step leaves an empty target, which takes the whole ledger the next time; after it, all of it."""
    died = subprocess.run(
        [sys.executable, "-c", KILLED_AT, str(source), target, step], cwd=ROOT, capture_output=True, check=False
    )
    assert died.returncode == -9, died.stderr.decode()
    if step == "done":
        assert _rows_of(target) == _rows_of_file(source)
        return
    assert not any(_rows_of(target).values())
    copy_ledger(source, target, SECRET)
    assert _rows_of(target) == _rows_of_file(source)


def test_urls_of_the_wrong_kind_are_named(target: str) -> None:
    """A ledger goes from a file into a PostgreSQL and nowhere else; both mistakes are said at once."""
    with pytest.raises(SettingsError) as refused:
        copied(target, "sqlite:///x.db", lambda: SECRET, lambda _: None)
    assert len(refused.value.problems) == 2
