"""What a tenant stores is counted by the database, in the transaction that stores it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.jobs.model import TenantId
from service.store.copying import copy_ledger
from service.store.postgres.migrate import MIGRATIONS as POSTGRES_MIGRATIONS
from service.store.sqlite.connection import connect
from service.store.sqlite.migrate import migrate
from tests.support.api import ApiUnderTest, Client
from tests.support.both_stores import BOTH, POSTGRES, SQLITE, Store
from tests.support.postgres import PostgresServer
from tests.support.storage import counted, measured
from tests.support.stores import SECRET

pytestmark = pytest.mark.stores(*BOTH)

_NAME = "tenant_storage"


def _stores_something(api: ApiUnderTest) -> None:
    """Let two tenants store inputs, one of which is replaced by a shorter and a longer one, artifacts and records."""
    for tenant in ("acme", "other"):
        client = api.client(f"anna-{tenant}", tenant=tenant)
        job = client.new_job()
        for payload in (b"x" * 5000, b"short", b"y" * 700):
            assert client.put(f"/v1/jobs/{job['id']}/inputs/in.txt", payload).status_code == 200
        assert client.put(f"/v1/jobs/{job['id']}/inputs/other.txt", "ä".encode() * 99).status_code == 200
        client.finished_job(artifacts={"a.txt": b"z" * 3000, "b.txt": b""})
        assert client.post(f"/v1/jobs/{job['id']}/run").status_code == 409


def test_the_count_is_what_is_stored(api: ApiUnderTest, store: Store) -> None:
    """Records, inputs with what replaced them, and artifacts of each tenant are counted to the byte; refusals too."""
    _stores_something(api)
    expected = measured(store.rows)
    assert expected.keys() >= {"acme", "other"}
    assert counted(store.rows) == expected
    assert {tenant: store.reads.stored_bytes(TenantId(tenant)) for tenant in expected} == expected
    assert store.reads.stored_bytes(TenantId("nobody")) == 0


def test_a_stranger_adds_nothing_to_a_tenant(api: ApiUnderTest, store: Store) -> None:
    """Records of requests without a credential, and of the service itself, count for no tenant, also not `default`."""
    api.client("anna")
    before = store.reads.stored_bytes(TenantId("default"))
    assert before > 0
    for number in range(5):
        Client(api, None, source=f"192.0.2.{number}").get("/v1/jobs")
    assert len(api.records(actor_id="anonymous")) == 5
    assert store.reads.stored_bytes(TenantId("default")) == before


def test_what_is_rolled_back_is_not_counted(api: ApiUnderTest, store: Store) -> None:
    """A transaction that fails after it stored something leaves the count as it was."""
    client = api.client("anna")
    before = store.reads.stored_bytes(TenantId("default"))

    def fail(transaction: Any) -> None:
        transaction.save(store.fact())
        raise RuntimeError

    with pytest.raises(RuntimeError):
        api.lane.submit(fail).result()
    assert store.reads.stored_bytes(TenantId("default")) == before
    client.new_job()
    assert store.reads.stored_bytes(TenantId("default")) > before


@pytest.mark.stores(SQLITE)
def test_a_migration_counts_what_is_there(api: ApiUnderTest, store: Store) -> None:
    """A file of an earlier release is counted when it is migrated, to the byte."""
    _stores_something(api)
    with closing(connect(store.path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'tenant_st%'")
        for (name,) in names.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DROP TABLE tenant_storage")
        connection.execute(f"DELETE FROM schema_additions WHERE name LIKE '%{_NAME}%'")
        assert len(migrate(connection)) == 1
    assert counted(store.rows) == measured(store.rows)


@pytest.mark.stores(POSTGRES)
def test_a_migration_of_postgres_counts_what_is_there(api: ApiUnderTest, store: Store) -> None:
    """The same for a database on PostgreSQL."""
    _stores_something(api)
    (step,) = [step for step in POSTGRES_MIGRATIONS if _NAME in step.name]
    with psycopg.connect(store.owner_database) as session:
        session.execute("DROP TABLE tenant_storage; DROP FUNCTION count_records, count_content CASCADE")
        session.execute(step.sql.encode())
    assert counted(store.rows) == measured(store.rows)
    api.client("ben", tenant="acme")
    assert counted(store.rows) == measured(store.rows)


@pytest.mark.stores(SQLITE)
def test_a_copy_is_counted(api: ApiUnderTest, store: Store, postgres_server: PostgresServer, tmp_path: Path) -> None:
    """After a copy into a PostgreSQL the counts are those of the file, and what is added later is counted there."""
    _stores_something(api)
    store.close()
    target = postgres_server.create_database()
    copy_ledger(store.path, target, SECRET)
    with closing(sqlite3.connect(store.path)) as of_file, psycopg.connect(target) as session:
        expected = measured(lambda sql: of_file.execute(sql).fetchall())
        assert counted(lambda sql: session.execute(sql.encode()).fetchall()) == expected
        assert measured(lambda sql: session.execute(sql.encode()).fetchall()) == expected
        enabled = session.execute("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'tenant_st%' AND tgenabled <> 'O'")
        assert enabled.fetchall() == [(0,)]


def test_jobs_of_a_full_tenant_wait(api: ApiUnderTest, store: Store) -> None:
    """No job of a tenant that stores too much is claimed; those of other tenants are, and its own with more room."""
    jobs = {}
    for tenant in ("acme", "other"):
        client = api.client(f"anna-{tenant}", tenant=tenant)
        job = client.drafted_job()
        if tenant == "acme":
            big = client.new_job()
            client.put(f"/v1/jobs/{big['id']}/inputs/in.txt", b"x" * 1_000_000)
        assert client.post(f"/v1/jobs/{job['id']}/run").status_code == 200
        jobs[tenant] = job["id"]
    now_ns = api.clock() + 1_000_000_000

    def claimable(transaction: Any, max_bytes: int | None) -> str | None:
        job = transaction.next_runnable(now_ns, max_bytes)
        return job and job.job_id

    assert api.lane.submit(lambda each: claimable(each, 1_000_000)).result() == jobs["other"]
    assert api.lane.submit(lambda each: claimable(each, 1_000)).result() is None
    assert api.lane.submit(lambda each: claimable(each, 2_000_000)).result() in jobs.values()
    assert api.lane.submit(lambda each: claimable(each, None)).result() in jobs.values()
