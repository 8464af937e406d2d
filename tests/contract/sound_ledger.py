"""A ledger of either kind in which everything has happened once, copies of it, and what breaks them."""

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

import psycopg

from service.jobs.model import Status, TenantId
from service.operations.configuring import Configuring
from service.operations.keys import KeyOperations
from service.ports import Configuration, Discrepancy
from service.records import AuditContext
from service.roles import ADMIN
from service.secrets import DeploymentSecret
from service.store.postgres.migrate import MIGRATIONS
from service.store.postgres.reconciliation import reconcile as reconcile_postgres
from service.store.sqlite.reconciliation import reconcile as reconcile_sqlite
from telemetry.audit.record import Actor
from tests.support.both_stores import POSTGRES, SQLITE, Store
from tests.support.jobs import Jobs
from tests.support.postgres import PostgresServer
from tests.support.postgres_stores import PostgresStore, of_postgres
from tests.support.stores import SECRET

_YEAR_NS: Final = 365 * 24 * 3600 * 1_000_000_000

_FRAGMENTS: Final = {
    "<document that succeeded>": {
        SQLITE: "json_set(document, '$.status', 'succeeded')",
        POSTGRES: """jsonb_set(document::jsonb, '{status}', '"succeeded"')::text""",
    },
    "<document of mallory>": {
        SQLITE: "json_set(document, '$.created_by', 'mallory')",
        POSTGRES: """jsonb_set(document::jsonb, '{created_by}', '"mallory"')::text""",
    },
    "<otlp of mary>": {
        SQLITE: "CAST(replace(otlp, 'anna', 'mary') AS BLOB)",
        POSTGRES: "decode(replace(encode(otlp, 'hex'), encode('anna', 'hex'), encode('mary', 'hex')), 'hex')",
    },
}
"""What is written differently for each kind of database."""


class SqliteLedger:
    """A file that no process has open."""

    kind: ClassVar[str] = SQLITE

    def __init__(self, path: Path) -> None:
        self.path = path

    def copy(self, folder: Path) -> "SqliteLedger":
        """Return a copy that may be broken."""
        return SqliteLedger(Path(shutil.copy(self.path, folder)))

    def reconcile(self, secret: DeploymentSecret = SECRET) -> Sequence[Discrepancy]:
        """Return everything that is found wrong."""
        return list(reconcile_sqlite(self.path, secret))

    def rows(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """Read straight from the database."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql).fetchall()

    def attack(self, statements: Sequence[str]) -> None:
        """Carry out what no trigger, foreign key or constraint holds back, and put the triggers back."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                if connection.execute(_of(SQLITE, statement)).rowcount == 0:
                    raise AssertionError(f"nothing was changed by: {statement}")
            for _, text in triggers:
                connection.execute(text)

    def carry_out(self, *statements: str) -> None:
        """Carry out statements that change the schema."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    def drop(self) -> None:
        """Nothing: the folder of the test goes by itself."""


class PostgresLedger:
    """A database without sessions."""

    kind: ClassVar[str] = POSTGRES

    def __init__(self, server: PostgresServer, url: str) -> None:
        self._server = server
        self.url = url

    def copy(self, folder: Path) -> "PostgresLedger":
        """Return a copy that may be broken."""
        del folder
        return PostgresLedger(self._server, self._server.create_database(self.url.split("///")[1].split("?")[0]))

    def reconcile(self, secret: DeploymentSecret = SECRET) -> Sequence[Discrepancy]:
        """Return everything that is found wrong."""
        return list(reconcile_postgres(self.url, secret))

    def rows(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """Read straight from the database."""
        with psycopg.connect(self.url) as session:
            return session.execute(of_postgres(sql)).fetchall()

    def attack(self, statements: Sequence[str]) -> None:
        """Carry out what no trigger, foreign key or constraint holds back."""
        with psycopg.connect(self.url, autocommit=True) as session:
            session.execute("SET session_replication_role = replica")
            for statement in statements:
                if session.execute(_of(POSTGRES, statement)).rowcount == 0:
                    raise AssertionError(f"nothing was changed by: {statement}")

    def carry_out(self, *statements: str) -> None:
        """Carry out statements that change the schema."""
        with psycopg.connect(self.url, autocommit=True) as session:
            for statement in statements:
                session.execute(statement.encode())

    def drop(self) -> None:
        """Remove it."""
        self._server.drop_database(self.url)


Ledger: TypeAlias = SqliteLedger | PostgresLedger


def make_sound(kind: str, folder: Path, server: Callable[[], PostgresServer]) -> Ledger:
    """Return a database in which everything has happened once, and nothing is wrong."""
    store = PostgresStore(server(), folder, is_running=True) if kind == POSTGRES else None
    jobs = Jobs(folder, store=store)
    _let_everything_happen(jobs)
    jobs.close()
    jobs.store.close()
    if store is None:
        return SqliteLedger(folder / "ledger.db")
    _pass_time_again(store.url)
    made = PostgresLedger(server(), store.url)
    made.carry_out("CREATE EXTENSION amcheck")
    return made


def _let_everything_happen(jobs: Jobs) -> None:
    client = jobs.client("anna")
    waiting = client.create("shell", {"script": "true"}).value.job_id
    client.write_input(waiting, "data.csv", b"1,2,3")
    client.write_input(waiting, "data.csv", b"4,5,6")
    failing = jobs.queued("echo gone > out/lost.txt; exit 3").job_id
    client.cancel(jobs.queued("true").job_id)
    worker = jobs.worker()
    jobs.until(failing, Status.FAILED)
    client.retry(failing)
    jobs.until(failing, Status.FAILED)
    worker.stop(60)
    context = AuditContext(
        actor=Actor("root", "system", "service"), tenant_id=TenantId("default"), source="cli", roles=frozenset({ADMIN})
    )
    keys = KeyOperations(jobs.services, context, jobs.services.tracing.root("keys"))
    keys.create("kept", ["viewer", "operator"], TenantId("default"), person="kim@example.com")
    keys.create("revoked", ["admin"], TenantId("acme"), jobs.clock() + _YEAR_NS)
    keys.revoke("revoked", TenantId("acme"))
    configuring = Configuring(jobs.services, context, jobs.services.tracing.root("service.configure"))
    for interval in (1, 2):
        configuring.configure("one", Configuration({"sink.archive": "/a", "interval": interval}, {}), {})
    outbox = jobs.store.outbox()
    (pending,) = outbox.pending_offers()
    outbox.end_offer(pending.number, "401 no")
    _sign_and_deliver(jobs.store, jobs.lane)


def _sign_and_deliver(store: Store, first: Any) -> None:
    writer = store.checkpoints(first)
    first.close(writer.write_last)
    lane: Any = store.lane("later")
    writer = store.checkpoints(lane)
    for _ in range(3):
        lane.submit(lambda transaction: transaction.save(store.fact())).result()
        writer.write()
    lane.submit(lambda transaction: transaction.save(store.fact())).result()
    outbox = store.outbox()
    outbox.delivered(outbox.take(20, 2**20))


def _pass_time_again(url: str) -> None:
    """Put back the clock that the tests had replaced, which is part of the schema."""
    clock = MIGRATIONS[0].sql.split("CREATE FUNCTION ledger_now_ns()")[1].split("$$;")[0]
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"CREATE OR REPLACE FUNCTION ledger_now_ns(){clock}$$".encode())
        session.execute("DROP SEQUENCE test_clock")


def _of(kind: str, statement: str) -> Any:
    for fragment, written in _FRAGMENTS.items():
        statement = statement.replace(fragment, written[kind])
    return of_postgres(statement) if kind == POSTGRES else statement
