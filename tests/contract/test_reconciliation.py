"""The reconciliation of either kind of database finds, by the check that is meant for it, what contradicts itself."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from service.errors import SettingsError
from service.ports import Discrepancy, Transition
from service.secrets import DeploymentSecret
from service.store.postgres.reconciliation import reconcile as reconcile_postgres
from service.store.reconciling import CHECKS
from service.store.sqlite.reconciliation import reconcile as reconcile_sqlite
from telemetry.audit.signer import Signer
from tests.contract.sound_ledger import Ledger, SqliteLedger, copies, make_sound
from tests.support.both_stores import BOTH, POSTGRES, Store
from tests.support.ledger_maker import FOREIGN_KEY
from tests.support.postgres_stores import PostgresStore
from tests.support.stores import SECRET, SqliteStore

pytestmark = pytest.mark.stores(*BOTH)

_OTHER_BYTES = b"other bytes"
_OTHER_SHA256 = hashlib.sha256(_OTHER_BYTES).hexdigest()
_EARLIER_SHA256 = hashlib.sha256(b"1,2,3").hexdigest()
_CANCELLED = "event_name = 'job.cancel'"
_LAST_FACT = "position = (SELECT max(position) FROM audit_records WHERE event_name = 'job.create')"
_OF_CLOSED_STREAM = "stream_id = (SELECT stream_id FROM audit_streams WHERE closed = 1 ORDER BY opened_ns LIMIT 1)"
_A_RECORD = "record_id, 'x' FROM audit_records LIMIT 1"
_MALLORY = Signer(FOREIGN_KEY)


class Break(NamedTuple):
    """Statements that break a database, and the checks that find it: those of both kinds, and more on PostgreSQL."""

    how: Sequence[str]
    found: set[str]
    on_postgres: frozenset[str] = frozenset()


BREAKS: dict[str, Break] = {
    "a secret of no job": Break(["INSERT INTO job_secrets VALUES ('nobody', 'token', x'00')"], {"foreign_keys"}),
    "a version has a record that is not there": Break(
        ["UPDATE job_versions SET record_id = 'gone' WHERE (job_id, version) = (SELECT min(job_id), 1 FROM jobs)"],
        {"foreign_keys", "version_without_record", "record_without_version"},
    ),
    "a version is gone": Break(
        ["DELETE FROM job_versions WHERE version = 2 AND status = 'draft_ready'"],
        {"foreign_keys", "record_without_version", "version_gap", "change_differs"},
    ),
    "a job was changed without a version": Break(
        ["UPDATE jobs SET status = 'succeeded', document = <document that succeeded>"],
        {"foreign_keys", "job_differs", "document_differs"},
    ),
    "a document was changed": Break(["UPDATE jobs SET document = <document of mallory>"], {"document_differs"}),
    "a version's status was changed": Break(
        ["UPDATE job_versions SET status = 'confirmed' WHERE version = 2 AND status = 'draft_ready'"],
        {"change_differs"},
    ),
    "a record's actor was changed where it is found by": Break(
        ["UPDATE audit_records SET actor_id = 'mallory' WHERE " + _CANCELLED], {"column_differs"}
    ),
    "a record's time was changed where it is found by": Break(
        ["UPDATE audit_records SET timestamp_ns = timestamp_ns + 1 WHERE " + _CANCELLED], {"column_differs"}
    ),
    "a record's observed time was changed where it is found by": Break(
        ["UPDATE audit_records SET observed_ns = observed_ns - 1 WHERE " + _CANCELLED],
        {"column_differs"},
        on_postgres=frozenset({"integrity"}),
    ),
    "a record is found under another job": Break(
        ["UPDATE audit_records SET job_id = NULL WHERE " + _CANCELLED], {"column_differs"}
    ),
    "a run is of another worker": Break(["UPDATE job_runs SET worker_id = 'mallory'"], {"run_differs"}),
    "a run is gone": Break(["DELETE FROM job_artifacts", "DELETE FROM job_runs WHERE number = 1"], {"run_differs"}),
    "an artifact has other bytes": Break(["UPDATE job_artifacts SET payload = x'00'"], {"content_differs"}),
    "an input was exchanged": Break(
        [f"UPDATE job_inputs SET payload = x'{_OTHER_BYTES.hex()}', size = 11, sha256 = '{_OTHER_SHA256}'"],
        {"input_without_record"},
    ),
    "an input is an earlier one": Break(
        [f"UPDATE job_inputs SET payload = x'{b'1,2,3'.hex()}', sha256 = '{_EARLIER_SHA256}'"],
        {"input_without_record"},
    ),
    "an API key that nobody made": Break(
        ["INSERT INTO api_keys VALUES ('id', 'default', 'mallory', 'admin', 'hash', 1, NULL, NULL)"],
        {"key_without_record"},
    ),
    "an API key has other roles": Break(
        ["UPDATE api_keys SET roles = 'admin' WHERE name = 'kept'"], {"key_without_record"}
    ),
    "an API key is of another tenant": Break(
        ["UPDATE api_keys SET tenant_id = 'acme' WHERE name = 'kept'"], {"key_without_record"}
    ),
    "a revoked API key is accepted again": Break(
        ["UPDATE api_keys SET revoked_ns = NULL WHERE name = 'revoked'"], {"key_without_record"}
    ),
    "an API key is revoked and nobody did it": Break(
        ["UPDATE api_keys SET revoked_ns = 1 WHERE name = 'kept'"], {"key_without_record"}
    ),
    "an API key is made to last longer": Break(
        ["UPDATE api_keys SET expires_ns = 9 WHERE name = 'kept'"], {"key_without_record"}
    ),
    "an API key is made to last for ever": Break(
        ["UPDATE api_keys SET expires_ns = NULL WHERE name = 'revoked'"], {"key_without_record"}
    ),
    "a tip has another time": Break(
        [f"UPDATE audit_streams SET observed_ns = 1 WHERE {_OF_CLOSED_STREAM}"], {"tip_differs"}
    ),
    "a cursor is past its tip": Break(["UPDATE delivery_cursors SET number = number + 1000"], {"cursor_differs"}),
    "a cursor is gone": Break([f"DELETE FROM delivery_cursors WHERE {_OF_CLOSED_STREAM}"], {"cursor_differs"}),
    "a record is parked": Break(
        ["INSERT INTO parked_records SELECT stream_id, 2, '400 no', 1 FROM audit_streams WHERE closed = 1"], {"parked"}
    ),
    "a record is parked that was not tried": Break(
        [f"INSERT INTO parked_records SELECT stream_id, number, '', 1 FROM audit_records WHERE {_LAST_FACT}"],
        {"parked"},
    ),
    "a record is parked that is not there": Break(
        ["INSERT INTO parked_records SELECT stream_id, 1000, '400 no', 1 FROM audit_streams WHERE closed = 1"],
        {"parked", "foreign_keys"},
    ),
    "a checkpoint has another time": Break(["UPDATE audit_checkpoints SET observed_ns = 1"], {"checkpoint_differs"}),
    "the last checkpoint's row is gone": Break(
        ["DELETE FROM audit_checkpoints WHERE number = (SELECT max(number) FROM audit_checkpoints)"],
        {"foreign_keys", "checkpoint_differs", "anchor_differs"},
    ),
    "a checkpoint has another signature": Break(
        ["UPDATE audit_checkpoints SET signature = 'AAAA' WHERE number = 1"], {"checkpoint_differs", "mac"}
    ),
    "an anchor was moved": Break(
        [f"UPDATE audit_anchors SET number = number - 1 WHERE {_OF_CLOSED_STREAM}"],
        {"anchor_differs", "mac", "refused"},
    ),
    "a closed stream's tip was stored by somebody else": Break(
        [f"UPDATE audit_streams SET mac = 'x' WHERE {_OF_CLOSED_STREAM}"], {"mac"}
    ),
    "a key that somebody else registered": Break(
        [f"INSERT INTO signing_keys SELECT 2, 'f', 'p', 9, 1, {_A_RECORD}"],
        {"signing_key"},
    ),
    "a key of somebody else that is said to have signed all": Break(
        [f"INSERT INTO signing_keys SELECT 2, '{_MALLORY.fingerprint}', '{_MALLORY.public_pem}', 1, 1, {_A_RECORD}"],
        {"signing_key"},
    ),
    "the registration of the only key was forged": Break(
        ["UPDATE signing_keys SET mac = 'x'"], {"signing_key", "verify"}
    ),
    "the only key was exchanged": Break(
        [f"UPDATE signing_keys SET public_key = '{_MALLORY.public_pem}'"], {"signing_key", "verify"}
    ),
    "no key is registered": Break(["DELETE FROM signing_keys"], {"foreign_keys", "signing_key"}),
    "a stream that its lane disowned": Break(
        [f"INSERT INTO refused_streams SELECT stream_id, 'cut', 1, 1 FROM audit_streams WHERE {_OF_CLOSED_STREAM}"],
        {"refused"},
    ),
    "a body was edited, and the columns with it": Break(
        [
            f"UPDATE audit_records SET body = replace(body, 'anna', 'mary') WHERE {_CANCELLED}",
            f"UPDATE audit_records SET actor_id = 'mary' WHERE {_CANCELLED}",
        ],
        {"verify"},
    ),
    "what is delivered was edited": Break(
        [f"UPDATE audit_records SET otlp = <otlp of mary> WHERE {_CANCELLED}"], {"verify"}
    ),
    "a body is no JSON": Break(
        ["UPDATE audit_records SET body = 'x' || body WHERE " + _CANCELLED],
        {"change_differs", "column_differs", "verify"},
    ),
}


@pytest.fixture(scope="module")
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ledger]:
    """A database of each kind in which everything has happened once, and nothing is wrong."""
    made: dict[str, Ledger] = {}

    def of_kind(kind: str) -> Ledger:
        if kind not in made:
            folder = tmp_path_factory.mktemp("sound")
            made[kind] = make_sound(kind, folder, lambda: request.getfixturevalue("postgres_server"))
            assert made[kind].reconcile() == []
        return made[kind]

    return of_kind


@pytest.fixture
def ledger(sound: Callable[[str], Ledger], store_kind: str, tmp_path: Path) -> Iterator[Ledger]:
    """A copy of it that a test may break."""
    yield from copies(sound, store_kind, tmp_path)


def _expect(ledger: Ledger, *checks: str) -> None:
    """Check that these find something, each with its place, and that nothing else is said to be wrong."""
    found = ledger.reconcile()
    assert {one.check for one in found} == set(checks), found
    assert all(one.place and one.detail for one in found)


@pytest.mark.parametrize("broken", BREAKS)
def test_what_is_broken_is_found_by_the_check_that_is_meant_for_it(ledger: Ledger, broken: str) -> None:
    """Each thing that can be wrong in a database is found, with its place, and nothing else is said to be wrong."""
    how, found, on_postgres = BREAKS[broken]
    ledger.attack(how)
    _expect(ledger, *found, *(on_postgres if ledger.kind == POSTGRES else ()))


def test_a_record_that_waits_for_delivery_and_is_gone_is_missed(ledger: Ledger) -> None:
    """The outbox says so, and so does whoever verifies."""
    key_of = f"record_id = (SELECT record_id FROM audit_records WHERE {_LAST_FACT})"
    keys = [f"DELETE FROM audit_record_keys WHERE {key_of}"] if ledger.kind == POSTGRES else []
    ledger.attack([*keys, f"DELETE FROM audit_records WHERE {_LAST_FACT}"])
    _expect(ledger, "outbox_differs", "refused", "verify")


def test_a_schema_that_a_newer_version_added_to_is_left_to_that_version(ledger: Ledger) -> None:
    """This one does not know what belongs there, so it says nothing is wrong, and nothing is right."""
    ledger.attack(["INSERT INTO schema_additions (name) VALUES ('0099_later.addition.sql')"])
    with pytest.raises(SettingsError, match="a newer version of auditrace added"):
        ledger.reconcile()


def test_a_forged_signing_key_is_named_and_the_rest_is_looked_over(ledger: Ledger) -> None:
    """What somebody without the ledger secret registered is a finding like any other, and keeps no check back."""
    ledger.attack(["UPDATE signing_keys SET mac = 'x'", "UPDATE jobs SET document = <document of mallory>"])
    ((fingerprint,),) = ledger.rows("SELECT fingerprint FROM signing_keys")
    found = ledger.reconcile()
    assert [one for one in found if one.check in {"signing_key", "verify"}] == [
        Discrepancy(
            "signing_key",
            f"signing key {fingerprint}",
            "it was not registered by a process of this deployment",
        ),
        Discrepancy("verify", "ledger", "there is no signing key left by which a signature can be checked"),
    ]
    assert {one.check for one in found} == {"signing_key", "verify", "document_differs"}


@pytest.mark.parametrize(
    ("table", "checks"),
    [
        ("job_artifacts", {"schema", "content_differs"}),
        ("tenant_turns", {"schema"}),
        ("parked_records", {"schema", "parked"}),
        ("refused_streams", {"schema", "refused"}),
    ],
)
def test_a_table_that_is_gone_keeps_no_other_check_back(ledger: Ledger, table: str, checks: set[str]) -> None:
    """Each check that needs it says that it cannot be carried out, and all others are."""
    ledger.attack(["UPDATE jobs SET document = <document of mallory>"])
    ledger.carry_out(f"DROP TABLE {table}")
    _expect(ledger, "document_differs", *checks)


def test_every_check_is_shown_by_something_that_it_finds() -> None:
    """No check is there that has never found anything; `integrity`, `schema` and `outbox_differs` have own tests."""
    of_both = set[str]().union(*(found for _, found, _ in BREAKS.values()))
    assert of_both | {"integrity", "schema", "outbox_differs"} == set(CHECKS)


def test_all_discrepancies_are_reported(ledger: Ledger) -> None:
    """Not only the first of a check, and each with the place where it is."""
    ledger.attack(["UPDATE jobs SET document = <document of mallory>"])
    job_ids = [row[0] for row in ledger.rows("SELECT job_id FROM jobs ORDER BY job_id")]
    assert sorted(ledger.reconcile(), key=lambda one: one.place) == [
        Discrepancy("document_differs", f"job {job_id}", "its document is not the one of its last version")
        for job_id in job_ids
    ]


def _wrong(store: Store) -> Sequence[Discrepancy]:
    if isinstance(store, SqliteStore):
        found = list(reconcile_sqlite(store.path, SECRET))
    else:
        found = list(reconcile_postgres(store.url, SECRET))
    # The clock of the test is no part of the schema.
    return [one for one in found if one.place != "function ledger_now_ns"]


def test_a_ledger_at_work_shows_nothing_wrong(store: Store) -> None:
    """While lanes commit, checkpoints are written and records delivered, no reconciliation raises a false alarm."""
    more = {"count": 2} if isinstance(store, PostgresStore) else {}
    lanes: list[Any] = [store.lane(f"node-{n}", **more) for n in range(2)]
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
            assert _wrong(store) == []
    finally:
        ended.set()
        thread.join()
    assert _wrong(store) == []


def test_a_record_that_holds_nul_is_found_by_what_it_says(store: Store) -> None:
    """A NUL that a client sends is kept in the body, and its columns raise no false alarm."""
    lane: Any = store.lane()
    record = store.record(more={"auditrace.request.id": "a\0b"})
    lane.submit(lambda transaction: transaction.save(Transition(record=record))).result()
    assert _wrong(store) == []


def test_another_secret_is_no_finding_but_a_setting(ledger: Ledger) -> None:
    """With the secret of another deployment nothing can be said of this one."""
    with pytest.raises(SettingsError, match="ledger secret"):
        ledger.reconcile(DeploymentSecret(b"other" * 8))


def test_a_database_that_needs_a_migration_is_no_finding_but_a_setting(ledger: Ledger) -> None:
    """What an older version left is migrated first."""
    is_file = isinstance(ledger, SqliteLedger)
    ledger.carry_out("PRAGMA user_version = 1" if is_file else "DELETE FROM schema_steps WHERE number > 1")
    with pytest.raises(SettingsError, match="auditrace migrate"):
        ledger.reconcile()
