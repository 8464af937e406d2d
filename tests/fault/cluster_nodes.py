"""A deployment over several processes on one PostgreSQL, in which everything can be killed and comes back."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psycopg

from service.keyfiles import SigningKeys, deployment_secret
from telemetry.audit.otlp import otlp_json
from tests.support.collector import ROOT
from tests.support.large_ledger import LargeLedger
from tests.support.otlp_sink import Answer, OtlpSink, Request
from tests.support.poll_until import poll_until
from tests.support.ports import ReservedPorts
from tests.support.postgres import PostgresServer, running_server
from tests.support.processes import Process, start_process
from tests.support.service import STOP_S, Service

SERVERS, WORKERS, RELAYS = 3, 3, 2
POSTGRES: Final = "postgres"
BACKEND: Final = "a backend of postgres"
COULD_NOT: Final = 2
"""The exit status of a process that found its database away when it started."""

TEMPLATES: Final = """
[templates.note]
description = "Leave a line that says which run this is"
writes = ["/tmp"]
command = ["sh", "-c", 'echo "$AUDITRACE_JOB_ID $AUDITRACE_RUN" >> "$0"; sleep 0.3', "{file}"]
max_attempts = 4
parameters.file = { type = "string", pattern = ".*" }

[templates.greet]
description = "Say hello"
command = ["echo", "hello", "{name}"]
parameters.name = { type = "string" }
"""


class Node:
    """One `auditrace` process; it starts again on the same port and folder."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._arguments = arguments
        self._environment = environment
        self._log = log
        self._process: Process | None = None

    def start(self) -> None:
        """Start it; whether it is ready is for others to find out."""
        with self._log.open("ab") as log:
            self._process = start_process(
                [sys.executable, "-m", "service", *self._arguments],
                env=self._environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End it with SIGKILL; does nothing when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End it with SIGTERM.

        Raises:
            AssertionError: it did not end cleanly, though it had begun.
        """
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() == COULD_NOT:
            # It began while its database was away, and nobody has looked since.
            return
        process.send_signal(signal.SIGTERM)
        # By the signal itself: it was killed a moment ago, and is not yet far enough to hear one. Or it finds only now
        # that its database was away when it began.
        status = process.wait(STOP_S)
        assert status in {0, -signal.SIGTERM, COULD_NOT}, f"{self.name} ended with {status}: {self.log()}"

    def keep_running(self) -> bool:
        """Start it again if it ended by itself, as a supervisor would; tells whether it had to.

        Raises:
            AssertionError: it ended although its database was not away.
        """
        status = None if self._process is None else self._process.poll()
        if status is None:
            return False
        assert status == COULD_NOT, f"{self.name} ended with {status}: {self.log()}"
        self.start()
        return True

    def log(self) -> str:
        """Return the end of what it said."""
        return self._log.read_text(errors="replace")[-4000:]


class Cluster:
    """Three servers, three workers, two relays, PostgreSQL with fsync, and a sink that keeps what comes on disk.

    Args:
        folder: gets everything but the data of PostgreSQL.
        records: how large the ledger is before it begins.
        now_ns: the time.
        database: an empty one to work on, its server and its URL; without it there is a server of its own.
        sizes: how many servers, workers and relays there are.
    """

    def __init__(
        self,
        folder: Path,
        records: int,
        now_ns: int,
        *,
        database: tuple[PostgresServer, str] | None = None,
        sizes: tuple[int, int, int] = (SERVERS, WORKERS, RELAYS),
    ) -> None:
        self.folder = folder
        self.executions = folder / "executions.txt"
        self.archive = folder / "archive"
        self.restarts = 0
        self._stack = ExitStack()
        self.postgres, self.url = database or self._own_database()
        self.archive.mkdir(parents=True)
        self.executions.touch()
        self._sunk = self._stack.enter_context((self.archive / "sunk.jsonl").open("ab", buffering=0))
        self._sink = self._stack.enter_context(OtlpSink(self._keep))
        keys = folder / "keys"
        (folder / "jobs.toml").write_text(TEMPLATES, encoding="utf-8")
        self.environment = {
            "PATH": os.environ["PATH"],  # noqa: TID251 - of the test run
            "AUDITRACE_DATABASE": self.url,
            "AUDITRACE_AUDIT_ENDPOINT": f"{self._sink.http_endpoint}/v1/logs",
            "AUDITRACE_SIGNING_KEY": str(keys / "signing.pem"),
            "AUDITRACE_LEDGER_SECRET": str(keys / "ledger.secret"),
            "AUDITRACE_ADMIN_KEY": str(keys / "admin.key"),
            "AUDITRACE_TEMPLATES": str(folder / "jobs.toml"),
            "AUDITRACE_CHECKPOINT_INTERVAL": "2s",
            "AUDITRACE_RUN_LEASE": "6s",
            "AUDITRACE_RUN_RENEW": "2s",
        }
        # The first start makes the keys; what there is of a ledger is put behind it.
        with Service(folder / "first", self.environment):
            self.admin_key = (keys / "admin.key").read_text().strip()
        self.secret = deployment_secret(keys / "ledger.secret", may_create=False)
        self.signer = SigningKeys(keys / "signing.pem").open(may_create=False)
        if records:
            self._grow(records, now_ns)
        servers, workers, relays = sizes
        self._reserved = ReservedPorts(servers)
        ports = self._reserved.numbers
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.nodes = {
            name: Node(name, arguments, self.environment, folder / f"{name}.log")
            for name, arguments in (
                *(
                    (f"serve-{n}", ("serve", "--no-worker", "--no-relay", "--port", str(ports[n])))
                    for n in range(servers)
                ),
                *((f"work-{n}", ("work",)) for n in range(workers)),
                *((f"relay-{n}", ("relay",)) for n in range(relays)),
            )
        }

    def __enter__(self) -> Self:
        for node in self.nodes.values():
            node.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            node.kill()
        self._stack.close()

    @property
    def targets(self) -> list[str]:
        """What can be killed; PostgreSQL as a whole and one of its backends are two of them."""
        return [*self.nodes, POSTGRES, BACKEND]

    def kill(self, target: str, draw: random.Random) -> None:
        """Kill one part with SIGKILL and start it again."""
        if target == POSTGRES:
            self.postgres.kill()
            self.postgres.start()
        elif target == BACKEND:
            self._kill_backend(draw)
        else:
            self.nodes[target].kill()
            self.nodes[target].start()

    def keep_running(self) -> None:
        """Start again what found its database away and ended for that."""
        self.restarts += sum(node.keep_running() for node in self.nodes.values())

    def rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Read straight from the database."""
        with psycopg.connect(self.url) as session:
            return session.execute(sql.encode(), values).fetchall()

    def settle(self, timeout_s: float = 600.0) -> None:
        """Wait until no job is on its way, stop everything cleanly, the relays when everything is delivered."""
        self._wait("SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')", "the last runs", timeout_s)
        for kind in ("serve", "work"):
            for name, node in self.nodes.items():
                if name.startswith(kind):
                    node.stop()
        self._wait(
            "SELECT count(*) FROM audit_streams JOIN delivery_cursors USING (stream_id)"
            " WHERE audit_streams.number > delivery_cursors.number",
            "the outbox to drain",
            timeout_s,
        )
        for node in self.nodes.values():
            node.stop()

    def _own_database(self) -> tuple[PostgresServer, str]:
        settings = {"max_connections": "300", "shared_buffers": "256MB"}
        server = self._stack.enter_context(running_server(fsync=True, settings=settings))
        return server, server.create_database()

    def _wait(self, sql: str, what: str, timeout_s: float) -> None:
        def is_done() -> bool:
            self.keep_running()
            try:
                return self.rows(sql) == [(0,)]
            except psycopg.OperationalError:
                return False

        poll_until(is_done, what, timeout_s)

    def _kill_backend(self, draw: random.Random) -> None:
        pids: list[tuple[object, ...]] = []

        def are_found() -> bool:
            try:
                pids[:] = self.rows(
                    "SELECT pid FROM pg_stat_activity WHERE application_name = 'auditrace' ORDER BY pid"
                )
            except psycopg.OperationalError:
                return False
            return bool(pids)

        poll_until(are_found, "a backend of postgres", 300)
        # The postmaster ends all others then, and recovers.
        os.kill(int(str(draw.choice(pids)[0])), signal.SIGKILL)

    def _grow(self, records: int, now_ns: int) -> None:
        """Put a large ledger into the database, whose archive and deliveries are those of long ago."""
        with (self.archive / "before.jsonl").open("w", encoding="utf-8") as bodies:
            ledger = LargeLedger(self.url, self.secret, self.signer, now_ns)
            ledger.fill(records, on_body=lambda body: bodies.write(f"{body}\n"))
        ledger.deliver()

    def _keep(self, request: Request) -> Answer:
        line = otlp_json(request.message.SerializeToString())
        self._sunk.write(line + b"\n")
        return Answer(stored=False)
