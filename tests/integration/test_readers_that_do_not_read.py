"""Clients that ask a real service for much and do not read: they hold little of it, and nobody waits for them."""

import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.poll_until import poll_until
from tests.support.postgres import PostgresServer
from tests.support.served import read_to_end
from tests.support.service import Service

READERS = 200
MOST_MIB = 64
ARTIFACT_BYTES = 8 * 1024 * 1024


@pytest.fixture(params=["sqlite", "postgres"])
def service(request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer) -> Iterator[Service]:
    """A service over either store that does nothing on its own."""
    settings = {"AUDITRACE_SELF_CHECK_INTERVAL": "24h", "AUDITRACE_POSTGRES_STANDBY": "optional"}
    if request.param == "postgres":
        settings["AUDITRACE_DATABASE"] = postgres_server.create_database()
    with Service(tmp_path, settings) as running:
        yield running


def _memory_mib(service: Service) -> int:
    assert service.process is not None
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) // 1024


def _connect(service: Service) -> socket.socket:
    address = urlsplit(service.url)
    connection = socket.socket()
    connection.settimeout(60)
    connection.connect((address.hostname, address.port))
    return connection


def _ask(service: Service, path: str, key: str = "") -> socket.socket:
    connection = _connect(service)
    credential = f"Authorization: Bearer {key}\r\n" if key else ""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{credential}\r\n".encode())
    return connection


def _live(service: Service) -> None:
    with _ask(service, "/health/live") as connection:
        assert read_to_end(connection).startswith(b"HTTP/1.1 200 ")


def _long_artifact(service: Service) -> str:
    client = service.client()
    job_id = client.create("store")["id"]
    payload = secrets.token_bytes(ARTIFACT_BYTES)
    assert client.http.put(f"/v1/jobs/{job_id}/inputs/a", content=payload).status_code == 200
    for step in ("draft", "run"):
        client.post(f"/v1/jobs/{job_id}/{step}")
    client.until(job_id, "succeeded")
    path = f"/v1/jobs/{job_id}/runs/1/artifacts/out/a"
    assert client.http.get(path).content == payload
    return path


def _begun(connections: Sequence[socket.socket]) -> bool:
    """Whether an answer has begun on each connection, or it was ended."""
    for connection in connections:
        connection.settimeout(0)
        try:
            connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionError:
            continue
    return True


def test_readers_that_do_not_read_cost_little_and_delay_nobody(service: Service) -> None:
    """Hundreds of exports, downloads and listings that nobody reads take at most 64 MiB, and others are answered."""
    client, auditors = service.client(), [service.key(f"auditor-{number}", "auditor") for number in range(8)]
    artifact = _long_artifact(service)
    for _ in range(300):
        client.create("greet", name="x" * 200)
    paths = ["/v1/audit/export", artifact, "/v1/audit/records?limit=1000"]
    for path in paths:
        # What the process keeps for each of its threads is there before the attack.
        for connection in [_ask(service, path, service.admin()) for _ in range(8)]:
            with connection:
                read_to_end(connection)
    before = _memory_mib(service)
    with ExitStack() as stack:
        for path in paths:
            keys = [service.admin()] if path == artifact else auditors
            held = [stack.enter_context(_ask(service, path, keys[number % len(keys)])) for number in range(READERS)]
            _live(service)
            poll_until(lambda held=held: _begun(held), "an answer, or a refusal, for each")
            _live(service)
        assert client.get("/v1/me")
        assert client.http.get("/health/ready").status_code == 200
        assert _memory_mib(service) - before <= MOST_MIB
    assert len(client.http.get("/v1/audit/export?format=jsonl").content.splitlines()) > 300
