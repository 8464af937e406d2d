"""The limits of a real service: a flood over sockets, and room for records of refusals when the disk is nearly full."""

import os
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from tests.support.depth import IS_LONG
from tests.support.served import read_to_end
from tests.support.service import Service

ADDRESSES: Final = 10_000 if IS_LONG else 1_000
REQUESTS_EACH: Final = 10 if IS_LONG else 3
MOST_GROWTH_KIB: Final = 64 * 1024


def _flood(address: tuple[str, int], source: str) -> Counter[str]:
    """Send requests with wrong keys on one connection from this address, and return how often each status came."""
    head = f"GET /v1/jobs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer atk_{source.replace('.', 'x')}_{'x' * 43}\r\n"
    with socket.create_connection(address, timeout=120, source_address=(source, 0)) as connection:
        connection.sendall(f"{head}\r\n".encode() * (REQUESTS_EACH - 1) + f"{head}Connection: close\r\n\r\n".encode())
        answers = read_to_end(connection).decode()
    return Counter(part.split()[0] for part in answers.split("HTTP/1.1 ")[1:])


def _memory_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0])


def test_a_flood_over_sockets_is_bounded(tmp_path: Path) -> None:
    """Wrong keys from many addresses, one of which is a client's own: it works meanwhile, memory stays small."""
    with Service(tmp_path) as service:
        client = service.client()
        client.create("greet", name="x")
        parts = urlsplit(service.url)
        assert parts.hostname is not None
        assert parts.port is not None
        assert service.process is not None
        address = parts.hostname, parts.port
        before = _memory_kib(service.process.pid)
        sources = [f"127.{1 + n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(1, ADDRESSES)]
        statuses: Counter[str] = Counter()
        with ThreadPoolExecutor(8) as senders:
            for number, found in enumerate(senders.map(lambda source: _flood(address, source), sources)):
                statuses += found
                if number % 100 == 0:
                    client.create("greet", name="x")
        for _ in range(100):
            statuses += _flood(address, "127.0.0.1")
        assert statuses.keys() == {"401", "429"}
        assert statuses.total() == (len(sources) + 100) * REQUESTS_EACH
        client.create("greet", name="x")
        assert _memory_kib(service.process.pid) - before < MOST_GROWTH_KIB
        denied = client.get("/v1/audit/records", actor_id="anonymous", limit="1")
        assert denied["records"]
        metrics = httpx.get(f"{service.url}/metrics").text
        assert 'auditrace_requests_refused_total{auditrace_limit="source_requests"}' in metrics


def test_refusals_are_on_record_when_work_is_refused(tmp_path: Path) -> None:
    """Below the watermark work is 503, and requests without a valid credential still leave their record."""
    found = os.statvfs(tmp_path)
    free_kib = found.f_bavail * found.f_frsize // 1024
    with Service(tmp_path, {"AUDITRACE_MIN_FREE": f"{free_kib * 3 // 2}KiB"}) as service:
        client = service.client()
        refused = client.http.post("/v1/jobs", json={"template": "greet", "parameters": {"name": "x"}})
        assert (refused.status_code, refused.json()["error_type"]) == (503, "disk_low")
        denied = httpx.get(f"{service.url}/v1/jobs")
        assert denied.status_code == 401
        assert denied.json()["audit"] is not None
