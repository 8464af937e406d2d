"""No verifier raises an alarm over an untouched ledger, whatever happens to PostgreSQL, its sessions and a worker."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.cli.main import main
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.otlp import otlp_json
from telemetry.audit.verify import Report, read_copy, verify
from tests.fault.cluster_nodes import Node
from tests.support.keys import public_key
from tests.support.load import Load
from tests.support.otlp_sink import Answer, OtlpSink, Request
from tests.support.poll_until import poll_until
from tests.support.ports import ReservedPorts
from tests.support.postgres import PostgresServer, running_server
from tests.support.service import Service
from tests.support.watch import Watch, await_verification, copies_of, findings_reported


class Running:
    """A service, a worker and a relay on a PostgreSQL with fsync; what is delivered is kept in `archive`."""

    def __init__(self, folder: Path, server: PostgresServer, sink: OtlpSink) -> None:
        self.server = server
        self.url = server.create_database()
        self.archive = folder / "archive"
        self.archive.mkdir()
        self._sunk = (self.archive / "sunk.jsonl").open("ab", buffering=0)
        sink.script = self._keep
        self._reserved = ReservedPorts(1)
        self.service = Service(
            folder / "service",
            {
                "AUDITRACE_DATABASE": self.url,
                "AUDITRACE_AUDIT_ENDPOINT": f"{sink.http_endpoint}/v1/logs",
                "AUDITRACE_CHECKPOINT_INTERVAL": "1s",
                "AUDITRACE_SELF_CHECK_INTERVAL": "1s",
            },
            ["--port", str(self._reserved.numbers[0])],
        )
        self.nodes = {name: Node(name, [name], self.service.environment, self._log(name)) for name in ("work", "relay")}

    def start(self) -> None:
        """Start the service, and the others once it has delivered its first checkpoint."""
        self.service.start()
        poll_until(lambda: self.verify_archive().verdict == "intact", "the first checkpoint to be delivered")
        for node in self.nodes.values():
            node.start()

    def stop(self) -> None:
        """Stop all of them cleanly."""
        assert self.service.stop() == 0
        for node in self.nodes.values():
            node.stop()

    def close(self) -> None:
        """End what still runs."""
        self.service.kill()
        for node in self.nodes.values():
            node.kill()
        self._sunk.close()

    def verify_archive(self) -> Report:
        """Return what a stranger finds in what was delivered."""
        return verify(read_copy([self.archive]), public_keys=[public_key(self.service.folder / "keys" / "signing.pem")])

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Read straight from the database."""
        with psycopg.connect(self.url, autocommit=True) as session:
            return session.execute(sql.encode(), values).fetchall()

    def checkpoints(self) -> int:
        """Return how many there are."""
        ((count,),) = self.rows("SELECT count(*) FROM audit_checkpoints")
        return int(count)

    def logs(self) -> str:
        """Return what the processes have said."""
        return "".join(log.read_text() for log in (self.service.log, self._log("work"), self._log("relay")))

    def end_sessions(self) -> None:
        """Have the server end all sessions of the processes."""
        ended = self.rows(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'auditrace'"
        )
        assert ended

    def restart_server(self) -> None:
        """Restart PostgreSQL as an operator does: it ends all sessions and writes everything out."""
        self.server.stop()
        self.server.start()

    def crash_server(self) -> None:
        """End PostgreSQL without a shutdown; it recovers from its log when it starts."""
        self.server.kill()
        self.server.start()

    def _log(self, name: str) -> Path:
        return self.service.folder / f"{name}.log"

    def _keep(self, request: Request) -> Answer:
        self._sunk.write(otlp_json(request.message.SerializeToString()) + b"\n")
        return Answer(stored=False)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """All of them, running."""
    with running_server(fsync=True) as server, OtlpSink() as sink:
        made = Running(tmp_path, server, sink)
        try:
            made.start()
            yield made
        finally:
            made.close()


def test_outages_of_postgres_and_a_killed_worker_raise_no_alarm(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under load PostgreSQL is restarted, ends all sessions and crashes, and a worker is killed: all of it is intact.

    The service's own verification reports nothing, and nor does `auditrace verify`: of the database and of what was
    delivered, as a whole and from each checkpoint on. All settings have their defaults, but for the intervals of
    checkpoints and of the service's own verification: these are a second instead of a minute.
    """
    service = running.service
    key = public_key(service.folder / "keys" / "signing.pem")
    with Watch(copies_of(running.url, running.archive), key) as watch, Load([service.url], service.admin(), 2) as load:
        for outage in (running.restart_server, running.end_sessions, running.crash_server):
            outage()
            require_no_alarm(running, load, watch)
        running.nodes["work"].kill()
        running.nodes["work"].start()
        require_no_alarm(running, load, watch)
    running.nodes["work"].kill()
    for _ in range(3):
        await_verification(service.url)
    assert findings_reported(service.url) == 0
    running.stop()
    assert "does not verify" not in running.logs()
    assert watch.alarms == []
    require_intact_windows(running, tmp_path / "public.pem", capsys)


def require_no_alarm(running: Running, load: Load, watch: Watch) -> None:
    """Have all go on, and see that nobody says anything against the ledger."""
    load.wait_for(10)
    before = running.checkpoints()
    watch.once_more()

    def go_on() -> bool:
        for node in running.nodes.values():
            # One that was still starting has found its database away, and ended for that.
            node.keep_running()
        return running.checkpoints() >= before + 2

    poll_until(go_on, "two more checkpoints")
    poll_until(
        lambda: running.service.client().get("/health/ready")["checks"]["verification"] == "ok",
        "the service to verify",
    )
    assert findings_reported(running.service.url) == 0
    assert watch.alarms == []


def require_intact_windows(running: Running, public_pem: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run `auditrace verify` on both copies, as a whole and from each checkpoint on, by number and by time."""
    public_pem.write_text(running.service.command("keys", "public").stdout)
    rows = running.rows("SELECT number, observed_ns FROM audit_checkpoints ORDER BY number")
    windows = [
        [],
        *(["--behind", str(number)] for number, _ in rows),
        *(["--since", rfc3339_nanos(at)] for _, at in rows),
    ]
    for copy in (["--database", running.url], [str(running.archive)]):
        for window in windows:
            status = main(["verify", *copy, *window, "--public-key", str(public_pem)])
            printed = capsys.readouterr()
            assert status == 0, (window, printed)
            assert "intact" in printed.out
