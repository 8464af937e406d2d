"""Waiting for a job's end, and following the trail, at a real service: in nobody's way when it stops."""

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.follower import END, Follower
from tests.support.poll_until import poll_until
from tests.support.served import read_to_end
from tests.support.service import Service


def test_a_run_that_fails_is_waited_for_and_says_why(tmp_path: Path) -> None:
    """One request after the run's start shows that it failed, and the end of its standard error."""
    with Service(tmp_path) as service:
        client = service.client()
        client.http.timeout = 120.0
        job_id = client.run("missing")
        job = client.get(f"/v1/jobs/{job_id}", wait="60s")
        assert job["status"] == "failed"
        assert "No such file" in job["runs"][0]["stderr_end"]


def test_a_stop_answers_who_waits(tmp_path: Path) -> None:
    """A clean stop does not cut a waiting request off: it is answered with the job as it is, and the exit is clean."""
    service = Service(tmp_path)
    service.start()
    client = service.client()
    job_id = client.create("greet", name="x")["id"]
    address = urlsplit(service.url)
    assert address.hostname is not None
    assert address.port is not None
    with socket.create_connection((address.hostname, address.port), timeout=120) as connection:
        head = f"GET /v1/jobs/{job_id}?wait=60s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {service.admin()}\r\n\r\n"
        connection.sendall(head.encode())
        poll_until(lambda: _is_read(connection), "the service has read the request")
        assert service.stop() == 0
        answer = read_to_end(connection)
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 ")
    assert json.loads(body)["status"] == "created"


def test_a_stop_ends_the_follows(tmp_path: Path) -> None:
    """A follow does not delay a clean stop: it gets what was committed, then the reason, and a clean end."""
    service = Service(tmp_path)
    service.start()
    with Follower(service.url, service.admin(), "&event_name=job.create") as follower:
        follower.first()
        job_id = service.client().create("greet", name="x")["id"]
        (event,) = follower.records(1)
        assert event.data["attributes"]["auditrace.job.id"] == job_id
        assert service.client().get("/health/ready")["status"] == "ready"
        assert service.stop() == 0
        assert [(each.name, each.data["error_type"]) for each in follower] == [(END, "shutting_down")]


def _is_read(connection: socket.socket) -> bool:
    """Tell whether the other side has taken all that was sent, by the kernel's table of sockets."""
    here, there = (f":{address[1]:04X}" for address in (connection.getsockname(), connection.getpeername()))
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, local, remote, _, queues = line.split()[:5]
        if local.endswith(there) and remote.endswith(here):
            return queues.endswith(":00000000")
    return False
