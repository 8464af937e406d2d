"""The ledger's protocol is written once: what the stores still say apart is the same statements, in two dialects."""

import difflib
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from service.store.postgres.statements import SQL as OF_POSTGRES
from service.store.sqlite.statements import SQL as OF_SQLITE
from tests.support.collector import ROOT
from tests.support.postgres import PostgresServer
from tests.support.sqlite_stores import SqliteStore

STORE = ROOT / "service" / "store"
MOST_IDENTICAL_LINES = 100
# What no other database needs: how leases are taken and who lives, locks, sessions, wake-ups.
ONLY_SQLITE = {
    *("lagging_cursors", "lease", "number_is_taken", "open_streams", "put_lease", "renew_cursor"),
    *("streams_to_renew", "take_stream"),
}
ONLY_POSTGRES = {
    *("announced", "await_announced", "awaited_job", "begin_sealing", "close_orphan", "durability", "end_session"),
    *("end_stream", "held_streams", "hint", "lagging_streams", "listen", "locked_job"),
    *("make_partitions", "may_create", "now", "orphaned_streams", "own_pid", "renew_streams"),
    *("session_name", "streams_at_work", "take_lease", "take_streams"),
}
# By what records are ordered differs, and which session a stream belongs to. A file also tells which workers are dead.
OWN_PARAMETERS: Mapping[str, tuple[set[str], set[str]]] = {
    "open_stream": (set(), {"session"}),
    "leased_runs": (set(), {"now_ns"}),
    "records": ({"before_position"}, {"before_ns", "before_id"}),
    "stored": ({"behind_position"}, {"behind_ns", "behind_id"}),
    "places_before": ({"before_position"}, {"before_ns", "before_id"}),
    "places_behind": ({"behind_position"}, {"behind_ns", "behind_id"}),
    "next_event_name": (set(), {"tenant_id"}),
    "next_result": (set(), {"tenant_id"}),
    "records_behind": ({"position"}, {"observed_ns", "stream_id"}),
}
OWN_COLUMNS = {
    "records": "position is one column, time and stream are two",
    "stored": "as for records",
    "places_before": "as for records",
    "places_behind": "as for records",
    "move_tip": "the time limit of the commit is lifted in the same statement",
}
SHARED = sorted(set(OF_SQLITE) & {*OF_POSTGRES})


def test_both_stores_know_the_same_statements() -> None:
    """A statement that one store has and the other lacks is about what only that database is."""
    assert set(OF_SQLITE) - set(OF_POSTGRES) == ONLY_SQLITE
    assert set(OF_POSTGRES) - set(OF_SQLITE) == ONLY_POSTGRES


@pytest.mark.parametrize("name", SHARED)
def test_a_statement_has_the_same_parameters_in_both_stores(name: str) -> None:
    """What shared code says is what both statements take; the time alone is PostgreSQL's own to know."""
    sqlite, postgres = OF_SQLITE[name], OF_POSTGRES[name].decode()
    of_sqlite = set(re.findall(r"(?<!:):([a-z_0-9]+)", re.sub(r"'[^']*'|--.*", "", sqlite)))
    of_postgres = set(re.findall(r"%\(([a-z_0-9]+)\)", postgres))
    if "ledger_now_ns()" in postgres:
        of_sqlite.discard("now_ns")
    only_sqlite, only_postgres = OWN_PARAMETERS.get(name, (set(), set()))
    assert of_sqlite - of_postgres == only_sqlite
    assert of_postgres - of_sqlite == only_postgres


def test_a_statement_gives_the_same_columns_in_both_stores(tmp_path: Path, postgres_server: PostgresServer) -> None:
    """What shared code makes of a row, it makes of the rows of both."""
    url = postgres_server.create_database()
    store = SqliteStore(tmp_path)
    with psycopg.connect(url) as session, closing(sqlite3.connect(store.path)) as connection:
        counted = {name: (_of_sqlite(connection, name), _of_postgres(session, name)) for name in SHARED}
    postgres_server.drop_database(url)
    store.close()
    differing = {name for name, (sqlite, postgres) in counted.items() if sqlite != postgres}
    assert differing == OWN_COLUMNS.keys(), {name: counted[name] for name in differing}


def test_the_stores_have_few_lines_in_common() -> None:
    """What is the same on every database stands above the stores, once."""
    identical = {str(file.relative_to(ROOT)): _identical(file, other) for file, other in _pairs()}
    assert sum(identical.values()) <= MOST_IDENTICAL_LINES, identical


def _of_sqlite(connection: sqlite3.Connection, name: str) -> int:
    statement = re.sub(
        r"^--.*\n", "", OF_SQLITE[name].split("\n;\n")[-1].replace("{where}", "true"), flags=re.MULTILINE
    )
    if statement.startswith(("INSERT", "UPDATE", "DELETE")):
        _, _, returned = statement.partition("RETURNING ")
        return len(returned.split(",")) if returned else 0
    names = re.findall(r"(?<!:):([a-z_0-9]+)", statement)
    return len(connection.execute(statement, dict.fromkeys(names, 0)).description or ())


def _of_postgres(session: psycopg.Connection, name: str) -> int:
    numbered: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${numbered.setdefault(found[1], len(numbered) + 1)}"

    statement = re.sub(r"%\(([a-z_0-9]+)\)[sb]", number, OF_POSTGRES[name].decode().replace("{where}", "true"))
    session.pgconn.prepare(b"", statement.encode())
    described = session.pgconn.describe_prepared(b"")
    assert not described.error_message, (name, described.error_message)
    return described.nfields


def _pairs() -> Iterator[tuple[Path, Path]]:
    for file in sorted((STORE / "sqlite").rglob("*.py")):
        other = STORE / "postgres" / file.relative_to(STORE / "sqlite")
        if other.exists():
            yield file, other
    yield STORE / "sqlite" / "lane.py", STORE / "postgres" / "session.py"
    yield ROOT / "service" / "bootstrap" / "sqlite.py", ROOT / "service" / "bootstrap" / "postgres.py"


def _identical(file: Path, other: Path) -> int:
    lines, others = ([line for line in path.read_text().splitlines() if line.strip()] for path in (file, other))
    blocks = difflib.SequenceMatcher(None, lines, others, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks)
