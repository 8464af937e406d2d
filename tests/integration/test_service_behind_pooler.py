"""A pooler before PostgreSQL: one that keeps a session for each connection is as good as none, others are refused."""

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import httpx
import psycopg
import pytest

from service.errors import LedgerUnavailableError, SettingsError
from service.store.postgres import pooling
from service.store.postgres.connection import connect
from service.store.postgres.reads import PostgresReads
from tests.integration.pgbouncer import PgBouncer
from tests.support.poll_until import poll_until
from tests.support.postgres import PostgresServer
from tests.support.postgres_stores import PostgresStore
from tests.support.service import Client, Service

SESSION, TRANSACTION, STATEMENT = "session", "transaction", "statement"
LENDING = pytest.mark.parametrize("mode", [TRANSACTION, STATEMENT])


class Pooler(Protocol):
    """Starts a pooler before the server."""

    def __call__(self, mode: str, *, in_turns: bool = False) -> PgBouncer: ...


@pytest.fixture
def pooler(postgres_server: PostgresServer) -> Iterator[Pooler]:
    """Start poolers before the server; all are ended behind the test."""
    started: list[PgBouncer] = []
    with tempfile.TemporaryDirectory(prefix="auditrace-pooler-") as name:
        Path(name).chmod(0o755)

        def start(mode: str, *, in_turns: bool = False) -> PgBouncer:
            folder = Path(name) / str(len(started))
            folder.mkdir()
            started.append(PgBouncer(folder, postgres_server, mode, in_turns=in_turns))
            started[-1].start()
            return started[-1]

        yield start
        for one in started:
            one.stop()


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of the test's own."""
    made = postgres_server.create_database()
    yield made
    postgres_server.drop_database(made)


_LENT = "lends this process a session"

VECTORS = Path(__file__).parents[1] / "vectors"

COMMANDS = [
    ["serve", "--port", "0"],
    ["work"],
    ["relay", "--once"],
    ["migrate"],
    ["keys", "list"],
    ["verify", "--database", "--public-key", str(VECTORS / "public.pem")],
]


@LENDING
def test_a_pooler_that_lends_sessions_is_refused_by_every_command(
    pooler: Pooler, url: str, tmp_path: Path, mode: str
) -> None:
    """Each ends at once with exit status 2 and one line, which says why and what to do; nothing was written."""
    service = Service(tmp_path, {"AUDITRACE_DATABASE": pooler(mode).url(url)})
    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(lambda command: service.command(*command, check=False), COMMANDS))
    for command, each in zip(COMMANDS, done, strict=True):
        lines = each.stderr.strip().splitlines()
        assert (each.returncode, len(lines)) == (2, 1), (command, each.stderr)
        assert "set pool_mode = session" in lines[0]
        assert "AUDITRACE_DATABASE" in lines[0]
    with psycopg.connect(url) as session:
        assert session.execute("SELECT count(*) FROM audit_streams").fetchall() == [(0,)]


@LENDING
def test_doctor_finds_a_pooler_that_lends_sessions(pooler: Pooler, url: str, tmp_path: Path, mode: str) -> None:
    """It is wrong, and not merely unknown: exit status 1."""
    service = Service(tmp_path, {"AUDITRACE_DATABASE": pooler(mode).url(url)})
    done = service.command("doctor", "--json", check=False)
    (wrong,) = [one for one in json.loads(done.stdout)["checks"] if one["status"] == "wrong"]
    assert (done.returncode, wrong["check"]) == (1, "database")
    assert "pool_mode = session" in wrong["detail"]


def test_a_busy_pooler_is_found_out_too(pooler: Pooler, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the two connections of the look are lent different sessions, since there are several to be lent."""
    monkeypatch.setattr(pooling, "TIMEOUT_S", 0.5)
    through = pooler(TRANSACTION, in_turns=True).url(url)
    _lend(through, 4)
    with pytest.raises(SettingsError, match=_LENT):
        connect(through)


def test_a_pooler_that_keeps_sessions_is_as_good_as_none(pooler: Pooler, url: str, tmp_path: Path) -> None:
    """A job runs to its end, hints arrive, checkpoints are written, and every record is delivered and verifies."""
    through = pooler(SESSION).url(url)
    with Service(tmp_path, {"AUDITRACE_DATABASE": through, "AUDITRACE_CHECKPOINT_INTERVAL": "1s"}) as service:
        client = service.client()
        job_id = client.run("greet", name="you")
        client.until(job_id, "succeeded")
        assert len(client.trail(job_id)) == 5
        poll_until(lambda: len(client.get("/v1/audit/checkpoints")["checkpoints"]) >= 2, "a second checkpoint")
        key = tmp_path / "public.pem"
        key.write_text(service.command("keys", "public").stdout)
        report = json.loads(service.command("verify", "--database", "--public-key", str(key), "--json").stdout)
        assert (report["verdict"], report["findings"]) == ("intact", [])


@pytest.mark.parametrize("mode", [TRANSACTION, STATEMENT])
def test_a_pooler_that_begins_to_lend_sessions_makes_the_service_unavailable(
    pooler: Pooler, url: str, tmp_path: Path, mode: str
) -> None:
    """Under a service at work, by a reload or a restart: clients get 503 and never 500, the log says why.

    Once the pooler keeps sessions again the same process goes on, and nothing that was acknowledged is missing.
    """
    before = pooler(SESSION)
    with Service(tmp_path, {"AUDITRACE_DATABASE": before.url(url), "AUDITRACE_CHECKPOINT_INTERVAL": "1s"}) as service:
        client = service.client()
        created = [_created(client) for _ in range(8)]
        for change in (PgBouncer.change, PgBouncer.restart):
            change(before, mode)
            answers = [_try(client) for _ in range(12)]
            created += [answer.json()["id"] for answer in answers if answer.status_code == 201]
            poll_until(lambda: _try(client).status_code == 503, "the service to be unavailable")
            poll_until(lambda: "pool_mode = session" in service.log.read_text(), "the log to say why")
            change(before, SESSION)
            poll_until(lambda: _try(client).status_code == 201, "the service to go on")
            created.append(_created(client))
        for job_id in created:
            assert client.get(f"/v1/jobs/{job_id}")["status"] == "created"


def _created(client: Client) -> str:
    return str(client.create("greet", name="you")["id"])


def _try(client: Client) -> httpx.Response:
    """Read and write, neither of which may ever be an internal error; return the answer to the write."""
    for path in ("/v1/jobs", "/v1/audit/records", "/v1/audit/checkpoints", "/health/ready"):
        read = client.http.get(path)
        assert read.status_code in {200, 503}, read.text
    answer = client.http.post("/v1/jobs", json={"template": "greet", "parameters": {"name": "you"}})
    assert answer.status_code in {201, 503}, answer.text
    return answer


def test_a_lane_notices_that_its_session_was_changed_for_another(
    pooler: Pooler, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it knows of its session does not hold in another one, so nothing is committed there."""
    monkeypatch.setattr(pooling, "TIMEOUT_S", 0.5)
    between = pooler(SESSION, in_turns=True)
    store = PostgresStore.opened(url, tmp_path, 1, lanes=1)
    lane = store.lane(url=between.url(url))
    first = lane.submit(lambda transaction: transaction.save(store.fact())).result()
    between.change(TRANSACTION)
    _lend(between.url(url), 2)
    failures = [lane.submit(lambda transaction: transaction.save(store.fact())).exception() for _ in range(4)]
    assert _LENT in str(failures[-1])
    assert isinstance(failures[-1], LedgerUnavailableError)
    between.change(SESSION)
    again = lane.submit(lambda transaction: transaction.save(store.fact())).result()
    assert again.stream_id != first.stream_id
    sessions = store.rows("SELECT count(DISTINCT session) FROM audit_streams")
    assert sessions == store.rows("SELECT count(*) FROM audit_streams")
    store.close()


def test_a_read_through_a_pooler_that_begins_to_lend_sessions_is_unavailable(
    pooler: Pooler, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that was prepared in another session is no fault of the ledger."""
    monkeypatch.setattr(pooling, "TIMEOUT_S", 0.5)
    between = pooler(SESSION, in_turns=True)
    reads = PostgresReads(between.url(url))
    for _ in range(10):
        assert reads.outbox().depth == 0
    between.change(TRANSACTION)
    _lend(between.url(url), 2)
    # The first one still has the session that was its own.
    assert reads.outbox().depth == 0
    with pytest.raises(LedgerUnavailableError, match=_LENT):
        reads.outbox()
    reads.close()


def _lend(through: str, count: int) -> None:
    """Let a pooler open so many sessions, in which nothing of the ledger was prepared, and have them idle."""
    held = [psycopg.connect(through, prepare_threshold=None) for _ in range(count)]
    assert len({each.execute("SELECT pg_backend_pid()").fetchone() for each in held}) == count
    for each in held:
        each.commit()
        each.close()
