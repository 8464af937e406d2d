"""The reconciliation finds, by the check that is meant for it, whatever contradicts itself in a database."""

import hashlib
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from service.errors import SettingsError
from service.jobs.model import Status, TenantId
from service.operations.keys import KeyOperations
from service.ports import Discrepancy
from service.records import AuditContext
from service.roles import ADMIN
from service.secrets import DeploymentSecret
from service.store.sqlite.reconciliation import CHECKS, reconcile
from telemetry.audit.record import Actor
from tests.support.jobs import Jobs
from tests.support.stores import SECRET, SqliteStore

Break: TypeAlias = Sequence[str] | Callable[[Path], None]

_OTHER_BYTES = b"other bytes"
_OTHER_SHA256 = hashlib.sha256(_OTHER_BYTES).hexdigest()
_CANCELLED = "event_name = 'job.cancel'"
_LAST_FACT = "position = (SELECT max(position) FROM audit_records WHERE event_name = 'job.create')"
_OF_CLOSED_STREAM = "stream_id = (SELECT stream_id FROM audit_streams WHERE closed = 1 ORDER BY opened_ns LIMIT 1)"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which everything has happened once, and nothing is wrong."""
    folder = tmp_path_factory.mktemp("sound")
    jobs = Jobs(folder)
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
    writer = jobs.store.checkpoints(jobs.lane)
    jobs.lane.close(writer.write_last)
    lane = jobs.store.lane("later")
    writer = jobs.store.checkpoints(lane)
    for _ in range(3):
        lane.submit(lambda transaction: transaction.save(jobs.store.fact())).result()
        writer.write()
    lane.submit(lambda transaction: transaction.save(jobs.store.fact())).result()
    outbox = jobs.store.outbox()
    outbox.delivered(outbox.take(20, 2**20))
    path = jobs.store.path
    jobs.close()
    assert list(reconcile(path, SECRET)) == []
    return path


def _attack(path: Path, statements: Sequence[str]) -> None:
    """Carry out statements that no trigger, foreign key or constraint holds back, and put the triggers back."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        if connection.execute(statement).rowcount == 0:
            raise AssertionError(f"nothing was changed by: {statement}")
    for _, text in triggers:
        connection.execute(text)
    connection.close()


def _damage_an_index(path: Path) -> None:
    """Overwrite the middle of an index's page on disk."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    root = "SELECT rootpage FROM sqlite_schema WHERE name = 'audit_records_by_trace'"
    ((page,),) = connection.execute(root).fetchall()
    ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    with path.open("r+b") as file:
        file.seek(page * size - 64)
        file.write(bytes(32))


def _drop_a_trigger(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER audit_records_are_not_changed")
    connection.close()


def _weaken_a_trigger(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER jobs_stay")
    connection.execute("CREATE TRIGGER jobs_stay BEFORE DELETE ON jobs BEGIN SELECT 1; END")
    connection.close()


def _add_a_trigger(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TRIGGER quiet AFTER INSERT ON jobs BEGIN UPDATE api_keys SET revoked_ns = 1 WHERE name = ''; END"
    )
    connection.close()


BREAKS: dict[str, tuple[Break, set[str]]] = {
    "an index page is damaged": (_damage_an_index, {"integrity"}),
    "a trigger is gone": (_drop_a_trigger, {"schema"}),
    "a trigger does nothing": (_weaken_a_trigger, {"schema"}),
    "a trigger was added": (_add_a_trigger, {"schema"}),
    "a secret of no job": (["INSERT INTO job_secrets VALUES ('nobody', 'token', x'00')"], {"foreign_keys"}),
    "a version has a record that is not there": (
        ["UPDATE job_versions SET record_id = 'gone' WHERE (job_id, version) = (SELECT min(job_id), 1 FROM jobs)"],
        {"foreign_keys", "version_without_record", "record_without_version"},
    ),
    "a version is gone": (
        ["DELETE FROM job_versions WHERE version = 2 AND status = 'draft_ready'"],
        {"foreign_keys", "record_without_version", "version_gap", "change_differs"},
    ),
    "a job was changed without a version": (
        ["UPDATE jobs SET status = 'succeeded', document = json_set(document, '$.status', 'succeeded')"],
        {"foreign_keys", "job_differs", "document_differs"},
    ),
    "a document was changed": (
        ["UPDATE jobs SET document = json_set(document, '$.created_by', 'mallory')"],
        {"document_differs"},
    ),
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
        {"column_differs"},
    ),
    "a record is found under another job": (
        ["UPDATE audit_records SET job_id = NULL WHERE " + _CANCELLED],
        {"column_differs"},
    ),
    "a run is of another worker": (["UPDATE job_runs SET worker_id = 'mallory'"], {"run_differs"}),
    "a run is gone": (["DELETE FROM job_artifacts", "DELETE FROM job_runs WHERE number = 1"], {"run_differs"}),
    "an artifact has other bytes": (["UPDATE job_artifacts SET payload = x'00'"], {"content_differs"}),
    "an input was exchanged": (
        [f"UPDATE job_inputs SET payload = x'{_OTHER_BYTES.hex()}', size = 11, sha256 = '{_OTHER_SHA256}'"],
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
        [f"DELETE FROM audit_records WHERE {_LAST_FACT}"],
        {"outbox_differs", "verify", "refused"},
    ),
    "a record is parked": (
        ["INSERT INTO parked_records SELECT stream_id, 2, '400 no', 1 FROM audit_streams WHERE closed = 1"],
        {"parked"},
    ),
    "a record is parked that was not tried": (
        [
            f"INSERT INTO parked_records SELECT stream_id, number, '', 1 FROM audit_records WHERE {_LAST_FACT}",
        ],
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
        [f"UPDATE audit_records SET otlp = CAST(replace(otlp, 'anna', 'mary') AS BLOB) WHERE {_CANCELLED}"],
        {"verify"},
    ),
    "a body is no JSON": (
        ["UPDATE audit_records SET body = 'x' || body WHERE " + _CANCELLED],
        {"change_differs", "column_differs", "verify"},
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_what_is_broken_is_found_by_the_check_that_is_meant_for_it(sound: Path, tmp_path: Path, broken: str) -> None:
    """Each thing that can be wrong in a database is found, with its place, and nothing else is said to be wrong."""
    how, expected = BREAKS[broken]
    path = Path(shutil.copy(sound, tmp_path))
    if callable(how):
        how(path)
    else:
        _attack(path, how)
    found = list(reconcile(path, SECRET))
    assert {one.check for one in found} == expected, found
    assert all(one.place and one.detail for one in found)


def test_every_check_is_shown_by_something_that_it_finds() -> None:
    """No check is there that has never found anything."""
    assert set().union(*(expected for _, expected in BREAKS.values())) == set(CHECKS)


def test_all_discrepancies_are_reported(sound: Path, tmp_path: Path) -> None:
    """Not only the first of a check, and each with the place where it is."""
    path = Path(shutil.copy(sound, tmp_path))
    _attack(path, ["UPDATE jobs SET document = json_set(document, '$.created_by', 'mallory')"])
    connection = sqlite3.connect(path)
    job_ids = [row[0] for row in connection.execute("SELECT job_id FROM jobs ORDER BY job_id")]
    connection.close()
    assert sorted(reconcile(path, SECRET), key=lambda one: one.place) == [
        Discrepancy("document_differs", f"job {job_id}", "its document is not the one of its last version")
        for job_id in job_ids
    ]


def test_a_ledger_at_work_shows_nothing_wrong(store: SqliteStore) -> None:
    """While lanes commit, checkpoints are written and records delivered, no reconciliation raises a false alarm."""
    lanes = [store.lane(f"node-{n}") for n in range(2)]
    writer = store.checkpoints(lanes[0])
    outbox = store.outbox()
    ended = threading.Event()

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
            assert list(reconcile(store.path, SECRET)) == []
    finally:
        ended.set()
        thread.join()
    assert list(reconcile(store.path, SECRET)) == []


def test_another_secret_is_no_finding_but_a_setting(sound: Path) -> None:
    """With the secret of another deployment nothing can be said of this one."""
    with pytest.raises(SettingsError, match="ledger secret"):
        list(reconcile(sound, DeploymentSecret(b"other" * 8)))


def test_a_database_that_needs_a_migration_is_no_finding_but_a_setting(sound: Path, tmp_path: Path) -> None:
    """What an older version left is migrated first."""
    path = Path(shutil.copy(sound, tmp_path))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(SettingsError, match="auditrace migrate"):
        list(reconcile(path, SECRET))
