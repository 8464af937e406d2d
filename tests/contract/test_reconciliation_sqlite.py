"""What can be wrong in a SQLite file alone: pages, triggers, texts; the rest is in test_reconciliation.py."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.sound_ledger import Ledger, SqliteLedger, make_sound
from tests.support.both_stores import SQLITE


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A database in which everything has happened once, and nothing is wrong."""
    return make_sound(SQLITE, tmp_path_factory.mktemp("sound"), pytest.fail)


@pytest.fixture
def ledger(sound: SqliteLedger, tmp_path: Path) -> Iterator[SqliteLedger]:
    """A copy of it that a test may break."""
    return sound.copy(tmp_path)


def _damage_an_index(ledger: SqliteLedger) -> None:
    """Overwrite the middle of an index's page on disk."""
    with closing(sqlite3.connect(ledger.path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        root = "SELECT rootpage FROM sqlite_schema WHERE name = 'audit_records_by_trace'"
        ((page,),) = connection.execute(root).fetchall()
        ((size,),) = connection.execute("PRAGMA page_size").fetchall()
        connection.execute("PRAGMA journal_mode = WAL")
    with ledger.path.open("r+b") as file:
        file.seek(page * size - 64)
        file.write(bytes(32))


def _drop_a_trigger(ledger: SqliteLedger) -> None:
    ledger.carry_out("DROP TRIGGER audit_records_are_not_changed")


def _weaken_a_trigger(ledger: SqliteLedger) -> None:
    ledger.carry_out("DROP TRIGGER jobs_stay", "CREATE TRIGGER jobs_stay BEFORE DELETE ON jobs BEGIN SELECT 1; END")


def _add_a_trigger(ledger: SqliteLedger) -> None:
    ledger.carry_out(
        "CREATE TRIGGER quiet AFTER INSERT ON jobs BEGIN UPDATE api_keys SET revoked_ns = 1 WHERE name = ''; END"
    )


def _store_what_is_no_text(ledger: SqliteLedger) -> None:
    ledger.attack(["UPDATE job_runs SET document = CAST(x'7bff7d' AS TEXT) WHERE number = 1"])


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (_damage_an_index, "integrity"),
        (_drop_a_trigger, "schema"),
        (_weaken_a_trigger, "schema"),
        (_add_a_trigger, "schema"),
        (_store_what_is_no_text, "run_differs"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__.strip("_"),
)
def test_what_is_broken_in_the_file_is_found(
    ledger: SqliteLedger, damage: Callable[[SqliteLedger], None], check: str
) -> None:
    """With its place, and nothing else is said to be wrong."""
    damage(ledger)
    found = ledger.reconcile()
    assert {one.check for one in found} == {check}, found
    assert all(one.place and one.detail for one in found)


def test_a_text_that_is_none_is_damage_and_no_outage(ledger: SqliteLedger) -> None:
    """Bytes that are no UTF-8 in the place of a body are found by the checks that read it; the others go on."""
    ledger.attack(["UPDATE audit_records SET body = CAST(x'7bff7d' AS TEXT) WHERE event_name = 'job.cancel'"])
    found = {one.check: one.detail for one in ledger.reconcile()}
    assert "it is damaged, so that this cannot be checked" in found["verify"]
    assert "it is damaged, so that this cannot be checked" in found["column_differs"]
    assert found.keys() <= {"verify", "column_differs", "change_differs"}
