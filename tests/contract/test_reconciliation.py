"""The reconciliation of either kind of database finds, by the check that is meant for it, what contradicts itself."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.errors import SettingsError
from service.ports import Discrepancy, Transition
from service.secrets import DeploymentSecret
from service.store.postgres.reconciliation import reconcile as reconcile_postgres
from service.store.reconciling import CHECKS
from service.store.sqlite.reconciliation import reconcile as reconcile_sqlite
from tests.contract.reconciliation_breaks import BREAKS
from tests.contract.sound_ledger import Ledger, PostgresLedger, SqliteLedger, make_sound
from tests.support.both_stores import BOTH, POSTGRES, SQLITE, Store
from tests.support.postgres import PostgresServer
from tests.support.postgres_stores import PostgresStore
from tests.support.sqlite_stores import SqliteStore
from tests.support.stores import SECRET

pytestmark = pytest.mark.stores(*BOTH)


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
    copy = sound(store_kind).copy(tmp_path)
    yield copy
    copy.drop()


def _expect(ledger: Ledger, *checks: str) -> None:
    """Check that these find something, each with its place, and that nothing else is said to be wrong."""
    found = ledger.reconcile()
    assert {one.check for one in found} == set(checks), found
    assert all(one.place and one.detail for one in found)


@pytest.mark.parametrize(
    ("store_kind", "broken"), [(kind, name) for kind in BOTH for name, one in BREAKS.items() if kind in one.kinds]
)
def test_what_is_broken_is_found_by_the_check_that_is_meant_for_it(ledger: Ledger, broken: str) -> None:
    """Each thing that can be wrong in a database is found, with its place, and nothing else is said to be wrong."""
    BREAKS[broken].carry_out(ledger)
    _expect(ledger, *BREAKS[broken].checks(ledger.kind))


@pytest.mark.stores(SQLITE)
def test_a_text_that_is_none_is_damage_and_no_outage(ledger: Ledger) -> None:
    """Bytes that are no UTF-8 in the place of a body are found by the checks that read it; the others go on."""
    ledger.attack(["UPDATE audit_records SET body = CAST(x'7bff7d' AS TEXT) WHERE event_name = 'job.cancel'"])
    found = {one.check: one.detail for one in ledger.reconcile()}
    assert "it is damaged, so that this cannot be checked" in found["verify"]
    assert "it is damaged, so that this cannot be checked" in found["column_differs"]
    assert found.keys() <= {"verify", "column_differs", "change_differs"}


@pytest.mark.stores(POSTGRES)
def test_a_role_that_may_not_make_a_schema_is_told_which_may(ledger: Ledger, postgres_server: PostgresServer) -> None:
    """The comparison of the schema needs the role that migrates; without it nothing is said to be wrong."""
    assert isinstance(ledger, PostgresLedger)
    ledger.carry_out("DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN", "GRANT pg_read_all_data TO reader")
    with pytest.raises(SettingsError, match="the role that migrates"):
        PostgresLedger(postgres_server, ledger.url.replace("user=auditrace", "user=reader")).reconcile()


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
    """Each check of each store has found something once; none is there for nothing."""
    for kind in BOTH:
        assert set[str]().union(*(one.checks(kind) for one in BREAKS.values() if kind in one.kinds)) == set(CHECKS)


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
