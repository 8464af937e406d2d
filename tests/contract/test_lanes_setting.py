"""`AUDITRACE_LANES`: how many works a process commits at the same time, on each kind of database."""

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from service.bootstrap.node import open_node
from service.config import read_settings
from service.errors import SettingsError
from service.ports import Transaction
from tests.support.both_stores import POSTGRES, SQLITE, Store
from tests.support.poll_until import poll_until

MORE_THAN_LANES = 12


def _environment(database: str, folder: Path, lanes: str) -> Mapping[str, str]:
    return {
        "AUDITRACE_DATABASE": database,
        "AUDITRACE_SIGNING_KEY": f"{folder}/keys/signing.pem",
        "AUDITRACE_LEDGER_SECRET": f"{folder}/keys/ledger.secret",
        "AUDITRACE_LANES": lanes,
    }


@pytest.mark.parametrize(
    ("store_kind", "lanes", "expected"),
    [(POSTGRES, "", 4), (POSTGRES, "1", 1), (POSTGRES, "7", 7), (SQLITE, "", 1), (SQLITE, "1", 1)],
)
def test_as_many_works_run_at_the_same_time_as_there_are_lanes(
    store: Store, tmp_path: Path, lanes: str, expected: int
) -> None:
    """Each lane carries out one work at a time; what is more waits, and everything is committed in the end."""
    begun: list[int] = []
    go = threading.Event()

    def hold(transaction: Transaction) -> None:
        begun.append(threading.get_ident())
        assert go.wait(60)
        transaction.save(store.fact())

    with open_node(read_settings(_environment(store.database, tmp_path, lanes)), "cli") as node:
        works = []
        try:
            for number in range(1, MORE_THAN_LANES + 1):
                works.append(node.opened.ledger.submit(hold))
                # One by one, so that no lane takes two of them as a group.
                busy = min(number, expected)
                poll_until(lambda busy=busy: len(begun) == busy, "a lane to take the work")
        finally:
            go.set()
        for work in works:
            work.result(60)
        assert len(set(begun)) == expected
    streams = store.rows("SELECT number FROM audit_streams")
    assert len(streams) == expected
    # An opening and a closing each, and the last checkpoint.
    assert sum(number for (number,) in streams) == MORE_THAN_LANES + 2 * expected + 1


@pytest.mark.parametrize("text", ["0", "65", "-1", "four", "2.0"])
def test_a_number_that_cannot_be_is_told(text: str) -> None:
    """Before anything is opened, with the range that is allowed."""
    with pytest.raises(SettingsError, match=f"AUDITRACE_LANES: '{text}' is not a whole number from 1 to 64"):
        read_settings({"AUDITRACE_LANES": text})


def test_sqlite_refuses_more_than_one(tmp_path: Path) -> None:
    """Whoever asks for more would believe to have them: the start says what to do, and makes nothing."""
    settings = read_settings(_environment(f"sqlite:///{tmp_path}/ledger.db", tmp_path, "2"))
    with (
        pytest.raises(SettingsError, match="AUDITRACE_LANES is 2, and SQLite takes one writer"),
        open_node(settings, "cli"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
