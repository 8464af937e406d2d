"""Statistics that know a few large streams mislead no statement that looks at every stream."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest

from service.store.queries import load_queries
from telemetry.audit.signer import Signer
from tests.support.large_ledger import LargeLedger
from tests.support.ledger_maker import KEY
from tests.support.postgres import PostgresServer
from tests.support.stores import SECRET

_STREAM_BY_STREAM = {
    "streams_overgrown": "service.store.postgres",
    "tip_differs": "service.store.postgres.reconciliation",
}


@pytest.fixture(scope="module")
def skewed(postgres_server: PostgresServer) -> Iterator[str]:
    """A database whose statistics are of two large streams, and in which many small ones were begun since."""
    url = postgres_server.create_database()
    LargeLedger(url, SECRET, Signer(KEY), time.time_ns()).fill(4_000, streams=2)  # noqa: TID251 - of what is filled in
    with psycopg.connect(url) as session:
        session.execute("SET session_replication_role = replica")
        columns = (
            "stream_id, epoch, owner, session, opened_ns, number, hash, record_id, observed_ns, mac, alive_until_ns"
        )
        small = "SELECT 'small-' || n, 1, '', '', n, 0, '', '', 0, '', 0 FROM generate_series(1, 500) AS n"
        session.execute(f"INSERT INTO audit_streams ({columns}) {small}".encode())
    yield url
    postgres_server.drop_database(url)


def _scanned(plan: Mapping[str, Any]) -> Iterator[str]:
    if plan["Node Type"] == "Seq Scan":
        yield plan["Relation Name"]
    for part in plan.get("Plans", ()):
        yield from _scanned(part)


@pytest.mark.parametrize("name", _STREAM_BY_STREAM)
def test_no_stream_costs_a_scan_of_all_records(skewed: str, name: str) -> None:
    """Checkpoints and reconciliations find the end of each stream by an index, however large streams were so far."""
    sql = load_queries(_STREAM_BY_STREAM[name])[name]
    with psycopg.connect(skewed) as session:
        ((plan,),) = session.execute(f"EXPLAIN (FORMAT JSON) {sql}".encode()).fetchall()
    large = {table for table in _scanned(plan[0]["Plan"]) if table.startswith("audit_record")}
    # Partitions that hold nothing yet are no matter.
    with psycopg.connect(skewed) as session:
        filled = {
            table
            for table in large
            if session.execute(f"SELECT EXISTS (SELECT FROM {table})".encode()).fetchall() == [(True,)]
        }
    assert filled == set()
